package apnstest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"badgerelay/apns"
)

const (
	frameHeaderLen = 9 // RFC 9113, section 4.1
	// :path has two entries in the static table: RFC 7541, appendix A.
	pathName, pathIndexName = 4, 5
	devicePath              = "/3/device/" // Apple, "Sending notification requests to APNs" (read 2026-11)
)

// fastLane serves pushes in fast mode that are like one that passed every rule
// before: the same coded header block save for the path, a plain badge, a
// device without peculiarities. It makes no stream of them, decodes no other
// field and allocates nothing. Everything else goes the slow way, reader.frame.
//
// The reader owns it.
type fastLane struct {
	shapes [4]shape // a client has one for each priority
	oldest int      // the next to be replaced
	last   int      // the one that fitted last

	topic, authorization string // of every shape

	// The block of the stream that was opened last, which becomes a shape if
	// the push passes.
	candidate     uint32 // 0: none
	before, after []byte

	path bytes.Buffer // decoded, where it is Huffman-coded
	raw  [apns.MaxDeviceTokenSize]byte
}

// shape is a coded header block around the path's value. Nothing in it changes
// the compression table, so until something else does, the same bytes mean the
// same fields.
type shape struct {
	before, after []byte // before ends with the name of :path; empty: no shape
	expires       int64
	priority      int
}

// look takes a whole header block that was decoded the slow way.
func (f *fastLane) look(id uint32, block []byte) {
	f.candidate = 0
	for b := block; len(b) > 0; {
		first, at := b[0], len(block)-len(b)
		if first&0x80 != 0 { // indexed: RFC 7541, section 6.1
			_, b = hpackInt(b, 7)
			continue
		}
		if first&0xe0 != 0 { // the table changes
			f.forget()
			return
		}
		name, value := hpackInt(b, 4)
		if name == 0 {
			value = skipString(value)
		}
		b = skipString(value)
		if name == pathName || name == pathIndexName {
			f.before = append(f.before[:0], block[:at+1]...)
			f.after = append(f.after[:0], b...)
			f.candidate = id
		}
	}
}

// forget drops every shape.
func (f *fastLane) forget() {
	for i := range f.shapes {
		f.shapes[i].before = f.shapes[i].before[:0]
	}
	f.candidate = 0
}

// learn makes a shape of the candidate: its push has passed every rule.
func (f *fastLane) learn(st *stream) {
	q := &st.req
	if f.candidate != st.id || q.pushType != "alert" || q.has&hasID != 0 {
		return
	}
	if f.topic != q.topic || f.authorization != q.authorization {
		id := f.candidate
		f.forget()
		f.topic, f.authorization, f.candidate = q.topic, q.authorization, id
	}
	s := &f.shapes[f.oldest]
	f.oldest = (f.oldest + 1) % len(f.shapes)
	s.before, s.after = append(s.before[:0], f.before...), append(s.after[:0], f.after...)
	s.expires, s.priority = q.expirationValue(), q.priorityValue()
	f.candidate = 0
}

// match finds the shape of a block and returns it with the device token; nil:
// none, or the path is no device's.
func (f *fastLane) match(block []byte) (*shape, []byte) {
	for range f.shapes {
		s := &f.shapes[f.last]
		if len(s.before) > 0 && bytes.HasPrefix(block, s.before) && bytes.HasSuffix(block, s.after) {
			path := block[len(s.before) : len(block)-len(s.after)]
			if token := f.token(path); token != nil {
				return s, token
			}
		}
		f.last = (f.last + 1) % len(f.shapes)
	}
	return nil, nil
}

// token reads the device token from a coded path; nil: it is not one.
func (f *fastLane) token(path []byte) []byte {
	if len(path) == 0 {
		return nil
	}
	huffman := path[0]&0x80 != 0
	n, rest := hpackInt(path, 7)
	if rest == nil || n != uint64(len(rest)) {
		return nil // the shape only seemed to fit
	}
	if huffman {
		f.path.Reset()
		if _, err := hpack.HuffmanDecode(&f.path, rest); err != nil {
			return nil
		}
		rest = f.path.Bytes()
	}
	digits, ok := bytes.CutPrefix(rest, []byte(devicePath))
	if n := len(digits); !ok || n%2 != 0 || n < 2*apns.MinDeviceTokenSize || n > 2*apns.MaxDeviceTokenSize {
		return nil
	}
	size, err := hex.Decode(f.raw[:], digits)
	if err != nil {
		return nil
	}
	return f.raw[:size]
}

// takeFast waits for bytes and serves the pushes at the front of the buffer
// that the fast lane takes. It reports whether there were any.
func (r *reader) takeFast() bool {
	if _, err := r.in.Peek(frameHeaderLen); err != nil {
		return false // reading the frame tells
	}
	now := time.Now()
	taken, size := 0, 0
	r.c.mu.Lock()
	if r.laneOpen(now) {
		buffer, _ := r.in.Peek(r.in.Buffered()) // it is there
		for {
			n := r.takeOne(buffer[size:], now)
			if n == 0 {
				break
			}
			taken++
			size += n
		}
	}
	changed, notes := r.c.takeNews()
	r.c.mu.Unlock()
	if taken == 0 {
		return false
	}
	_, _ = r.in.Discard(size) // it is there
	r.bytes += uint64(size)
	r.c.sim.counters.requests.Add(uint64(taken))
	r.c.sim.counters.accepted.Add(uint64(taken))
	r.c.sim.counters.fastLane.Add(uint64(taken))
	r.c.spread(changed, notes)
	return true
}

// laneOpen reports whether nothing out of the ordinary goes on. mu must be held.
func (r *reader) laneOpen(now time.Time) bool {
	c, a, plan := r.c, &r.auth, r.c.sim.plan.Load()
	cfg := &c.sim.cfg
	switch {
	case c.sim.scripted.Load() > 0, len(plan.requests) > 0, plan.delays, r.left > 0:
		return false
	case cfg.Environment == Sandbox, cfg.PowerDelay > 0, cfg.ReorderRate > 0:
		return false
	case !c.limits.trusted, c.slowed, c.starved, c.wedged, c.stalled, c.halfClose, c.closing, !c.goAwayAt.IsZero():
		return false
	case a.cert != nil:
		return true
	}
	text, ok := strings.CutPrefix(r.lane.authorization, "bearer ")
	return ok && text == a.text && !a.expired && !now.Before(a.until) && now.Unix()-a.issued <= tokenMaxAgeSeconds
}

// takeOne serves the push at the front of b and returns its size, or 0 if it
// is not one for the fast lane. mu must be held.
func (r *reader) takeOne(b []byte, now time.Time) int {
	c := r.c
	id, block, data := splitFrame(b, http2.FrameHeaders, http2.FlagHeadersEndHeaders)
	same, body, rest := splitFrame(data, http2.FrameData, http2.FlagDataEndStream)
	if rest == nil || same != id || id%2 == 0 || id <= c.lastSeen {
		return 0
	}
	if uint32(len(c.streams)+c.late) >= c.limits.inForce() || c.unacked+int64(len(body)) > initialWindow {
		return 0
	}
	badge, ok := plainBadge(body)
	if !ok {
		return 0
	}
	s, token := r.lane.match(block)
	if s == nil || !c.showFast(token, r.lane.topic, notification{badge, s.expires}, now) {
		return 0
	}
	c.lastSeen, c.processed, c.active = id, id, now
	c.score = max(0, c.score-1)
	if c.unacked += int64(len(body)); c.unacked >= initialWindow/2 {
		c.giveBack()
	}
	c.appendOK(id, "")
	c.answerLate()
	return len(b) - len(rest)
}

// splitFrame cuts a whole frame of this type and with exactly these flags from
// the front of b. rest is nil if there is none.
func splitFrame(b []byte, t http2.FrameType, flags http2.Flags) (id uint32, payload, rest []byte) {
	if len(b) < frameHeaderLen || b[3] != byte(t) || b[4] != byte(flags) {
		return 0, nil, nil
	}
	end := frameHeaderLen + int(b[0])<<16 + int(b[1])<<8 + int(b[2])
	if len(b) < end {
		return 0, nil, nil
	}
	return binary.BigEndian.Uint32(b[5:]) &^ (1 << 31), b[frameHeaderLen:end], b[end:]
}

// showFast shows a badge on an ordinary device. It reports false if there is
// none, or more to think about. mu must be held.
func (c *conn) showFast(token []byte, topic string, n notification, now time.Time) bool {
	s := c.sim
	sh := s.devices.shard(token)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	d := sh.m[string(token)]
	if d == nil {
		return s.cfg.AcceptUnknownDevices
	}
	if d.Topic != topic || d.Environment != s.cfg.Environment || !d.Online || d.held != nil ||
		!d.ExpiredAt.IsZero() || !d.UnregisteredAt.IsZero() || !d.goneAfter.IsZero() {
		return false
	}
	d.Accepted++
	d.Version++
	d.show(&n, now)
	sh.sawPush(d)
	if s.devices.watching.Load() > 0 {
		c.changed = append(c.changed, d.Device)
	}
	return true
}
