package apnstest

import (
	"time"

	"golang.org/x/net/http2"

	"badgerelay/apns"
)

// stream is one request and its answer. The reader owns req, body and what it
// notes beside them until it has submitted the request; the connection's mutex
// guards it from then on, and always window.
type stream struct {
	id        uint32
	req       request
	body      []byte
	received  int  // bytes of DATA, padding included
	complete  bool // the request is whole
	early     bool // it was answered before it was whole
	authentic bool // a valid provider token or certificate came with it
	badge     int64
	note      string
	client    string  // Config.BySource: its address
	dev       *device // nil: none, or none known
	shard     *deviceShard
	counted   bool // in dev.inFlight
	arrived   time.Time

	no       refusal // zero: 200
	script   Answer
	fault    Fault
	unique   string // apns-unique-id
	window   int64  // what the client lets us send on the stream
	tail     []byte // of the answer's body, waiting for a window
	recorded bool
	keyID    string
	// submitted says that the reader is done with it.
	submitted bool
}

// newStream opens a stream. mu must be held.
func (c *conn) newStream(id uint32) *stream {
	var st *stream
	if n := len(c.free); n > 0 {
		st, c.free = c.free[n-1], c.free[:n-1]
		body := st.body[:0]
		*st = stream{body: body}
	} else {
		st = &stream{}
	}
	st.id, st.window, st.client = id, c.initial, c.client
	c.streams[id] = st
	return st
}

// closeStream forgets a stream. mu must be held.
func (c *conn) closeStream(st *stream) {
	delete(c.streams, st.id)
	c.sim.counters.inFlight.Add(-1)
	if st.submitted && len(c.free) < 1024 && cap(st.body) <= 2*maxPayload {
		c.free = append(c.free, st)
	}
	if len(c.streams) == 0 && !c.goAwayAt.IsZero() {
		c.signal()
	}
}

// drop ends a stream without an answer. mu must be held.
func (c *conn) drop(st *stream, why string) {
	if st.submitted {
		c.unanswered(st, why)
	}
	c.markReset(st.id)
	c.closeStream(st)
}

// unanswered records a whole request that gets no answer. mu must be held.
func (c *conn) unanswered(st *stream, why string) {
	if st.counted {
		st.shard.mu.Lock()
		st.dev.inFlight--
		st.dev.client(st.client).inFlight--
		st.shard.mu.Unlock()
		st.counted = false
	}
	if !st.recorded {
		st.no.note = why
		c.record(st, time.Time{}, 0, "")
	}
}

// markReset remembers that frames for the stream may still be under way.
func (c *conn) markReset(id uint32) {
	if len(c.reset) >= 4096 {
		clear(c.reset) // whatever is under way is not that old
	}
	c.reset[id] = struct{}{}
}

// resetStream sends RST_STREAM. mu must be held.
func (c *conn) resetStream(id uint32, code http2.ErrCode) {
	_ = c.framer.WriteRSTStream(id, code) // into memory
	c.markReset(id)
}

// ignored reports whether frames for the stream are passed over. mu must be held.
func (c *conn) ignored(id uint32) bool {
	_, ok := c.reset[id]
	return ok || id > c.goAwayID
}

func (c *conn) wasReset(id uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ignored(id)
}

// record adds the request to the history. mu must be held.
func (c *conn) record(st *stream, answered time.Time, status int, id string) {
	st.recorded = true
	if c.sim.history.limit == 0 {
		return
	}
	q := &st.req
	rec := Record{
		Time: st.arrived, AnsweredAt: answered, Connection: c.id, Stream: st.id, ID: id, Topic: q.topic,
		PushType: q.pushType, CollapseID: q.collapseID, Priority: q.priorityValue(), Expiration: q.expirationValue(),
		Badge: st.badge, Payload: string(st.body), KeyID: st.keyID, Status: status,
		Reason: st.no.reason, Rule: st.no.rule, Note: st.no.note, Fault: st.fault,
	}
	if rec.ID == "" {
		rec.ID = q.id
	}
	if rec.Note == "" {
		rec.Note = st.note
	}
	if token, err := apns.DeviceTokenFromBytes(q.token()); err == nil {
		rec.Device = token
	}
	c.sim.history.add(rec)
}
