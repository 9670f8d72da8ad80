package apnstest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// errClosing ends the reader when the server has ended the connection.
var errClosing = errors.New("ended by the server")

// maxHeaderBlock bounds a coded header block, CONTINUATION frames included.
// Ours: eight times what the decoded list may be.
const maxHeaderBlock = 64 << 10

// protocolError is a breach of RFC 9113 that ends the connection (rule C11).
type protocolError struct {
	code http2.ErrCode
	text string
}

func (e protocolError) Error() string { return fmt.Sprintf("%v: %s", e.code, e.text) }

func breach(code http2.ErrCode, format string, args ...any) error {
	return protocolError{code, fmt.Sprintf(format, args...)}
}

// reader is what the goroutine that reads a connection owns.
type reader struct {
	c      *conn
	in     *bufio.Reader
	framer *http2.Framer
	dec    *hpack.Decoder
	rng    *rand.Rand
	auth   auth
	audit  hpackAudit
	lane   fastLane

	block    []byte // coded header block so far
	blockEnd bool   // END_STREAM was set
	fields   []hpack.HeaderField
	listSize uint32

	upload *stream // the last stream that was opened: DATA mostly is for it
	burst  Fault   // a burst under way
	left   int     // of it
	bytes  uint64  // read and not yet counted
	synced bool    // the client's first SETTINGS came
}

func (r *reader) init(c *conn, rng *rand.Rand) {
	r.c, r.rng = c, rng
	r.in = bufio.NewReaderSize(c.nc, 64<<10)
	r.framer = http2.NewFramer(&c.out, r.in)
	r.framer.AllowIllegalWrites = true // some faults need it
	r.framer.SetReuseFrames()
	r.framer.SetMaxReadFrameSize(maxFrameSize)
	r.dec = hpack.NewDecoder(headerTableSize, r.emit)
	r.dec.SetMaxStringLength(maxHeaderBlock)
	r.audit.size = headerTableSize
	r.auth.init(c)
}

// emit takes a decoded field; those beyond the list's limit only count.
func (r *reader) emit(f hpack.HeaderField) {
	r.listSize += f.Size()
	if r.listSize <= maxHeaderListSize {
		r.fields = append(r.fields, f)
	}
}

// run reads until the connection ends and returns why.
func (r *reader) run() error {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(r.in, preface); err != nil {
		return fmt.Errorf("read preface: %w", err)
	}
	if string(preface) != http2.ClientPreface {
		return r.fail(breach(http2.ErrCodeProtocol, "preface is not that of HTTP/2"))
	}
	for {
		r.flush()
		if r.c.halt.Load() {
			return r.stopped()
		}
		if r.c.sim.cfg.Fast && r.takeFast() {
			continue
		}
		f, err := r.framer.ReadFrame()
		if err == nil {
			err = r.frame(f)
		}
		if err == nil {
			continue
		}
		if err = r.fail(err); err != nil {
			return err
		}
	}
}

// flush wakes the writer when no whole frame waits to be read: all answers to
// what came in one read leave in one write.
func (r *reader) flush() {
	n := r.in.Buffered()
	if n >= frameHeaderLen {
		head, _ := r.in.Peek(3) // they are buffered
		if n >= frameHeaderLen+int(uint32(head[0])<<16|uint32(head[1])<<8|uint32(head[2])) {
			return
		}
	}
	if r.bytes > 0 {
		r.c.sim.counters.bytesRead.Add(r.bytes)
		r.bytes = 0
	}
	r.c.signal()
}

// stopped waits while a socket is stalled, and says why the reader ends.
func (r *reader) stopped() error {
	r.c.mu.Lock()
	closing := r.c.closing
	r.c.mu.Unlock()
	if closing {
		return errClosing
	}
	<-r.c.gone // the stall ends with the connection
	return errors.New("socket stalled by injected fault")
}

// fail deals with an error of reading or of a frame. It returns nil if only a
// stream had to end.
func (r *reader) fail(err error) error {
	c := r.c
	var (
		conn   http2.ConnectionError
		stream http2.StreamError
		ours   protocolError
	)
	switch {
	case errors.As(err, &ours):
	case errors.As(err, &conn):
		ours = protocolError{http2.ErrCode(conn), "frame is malformed"}
		if d := r.framer.ErrorDetail(); d != nil {
			ours.text = d.Error()
		}
	case errors.Is(err, http2.ErrFrameTooLarge):
		ours = protocolError{http2.ErrCodeFrameSize, "frame is larger than SETTINGS_MAX_FRAME_SIZE"}
	case errors.As(err, &stream):
		c.sim.clientFaults.count(ClientProtocolError, 1)
		c.mu.Lock()
		c.sim.counters.refused("", RuleHTTP2)
		if st := c.streams[stream.StreamID]; st != nil {
			c.drop(st, "frame breaks RFC 9113")
		}
		c.resetStream(stream.StreamID, stream.Code)
		c.mu.Unlock()
		return nil
	default:
		return err
	}
	c.sim.clientFaults.count(ClientProtocolError, 1)
	c.sim.counters.refused("", RuleHTTP2)
	c.log.Debug("connection ended", "rule", string(RuleHTTP2), "error", ours.Error())
	c.mu.Lock()
	c.goAway(c.processed, ours.code, []byte(ours.text))
	c.end()
	c.mu.Unlock()
	return errClosing
}

// frame handles one frame.
func (r *reader) frame(f http2.Frame) error {
	r.bytes += 9 + uint64(f.Header().Length)
	if !r.synced {
		if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
			return breach(http2.ErrCodeProtocol, "first frame is not SETTINGS")
		}
		r.synced = true
	}
	switch f := f.(type) {
	case *http2.HeadersFrame:
		if f.HasPriority() {
			r.c.sim.clientFaults.count(ClientPriorityFrame, 1)
		}
		return r.fragment(f.StreamID, f.HeaderBlockFragment(), f.HeadersEnded(), f.StreamEnded())
	case *http2.ContinuationFrame:
		return r.fragment(f.StreamID, f.HeaderBlockFragment(), f.HeadersEnded(), r.blockEnd)
	case *http2.DataFrame:
		return r.data(f)
	case *http2.SettingsFrame:
		return r.c.settings(f)
	case *http2.PingFrame:
		return r.c.ping(f)
	case *http2.WindowUpdateFrame:
		return r.c.windowUpdate(f)
	case *http2.RSTStreamFrame:
		return r.c.cancelled(f)
	case *http2.PriorityFrame:
		r.c.sim.clientFaults.count(ClientPriorityFrame, 1) // rule C10
	case *http2.PushPromiseFrame:
		return breach(http2.ErrCodeProtocol, "client sent PUSH_PROMISE")
	}
	return nil // GOAWAY and unknown frames ask for nothing
}

// fragment gathers a header block and opens or ends its stream with it.
func (r *reader) fragment(id uint32, frag []byte, last, end bool) error {
	r.blockEnd = end
	if !last || len(r.block) > 0 {
		if len(r.block)+len(frag) > maxHeaderBlock {
			return breach(http2.ErrCodeEnhanceYourCalm, "header block exceeds %d bytes", maxHeaderBlock)
		}
		r.block = append(r.block, frag...)
		if !last {
			return nil
		}
		frag = r.block
		defer func() { r.block = r.block[:0] }()
	}
	r.fields, r.listSize = r.fields[:0], 0
	if _, err := r.dec.Write(frag); err != nil {
		return breach(http2.ErrCodeCompression, "header block: %v", err)
	}
	if err := r.dec.Close(); err != nil {
		return breach(http2.ErrCodeCompression, "header block: %v", err)
	}
	if r.c.sim.cfg.Fast {
		r.lane.look(id, frag)
	} else {
		r.audit.walk(frag)
		r.audit.count(&r.c.sim.clientFaults, r.fields)
	}
	return r.headers(id, end)
}

// headers opens a stream, or ends it when they are trailers.
func (r *reader) headers(id uint32, end bool) error {
	c := r.c
	if id%2 == 0 {
		return breach(http2.ErrCodeProtocol, "stream %d is not a client's", id)
	}
	c.mu.Lock()
	if id <= c.lastSeen {
		st := c.streams[id]
		c.mu.Unlock()
		return r.trailers(id, st, end)
	}
	c.lastSeen = id
	if id > c.goAwayID {
		if time.Since(c.goAwayAt) > time.Second && !c.goAwayUnheard {
			c.sim.clientFaults.count(ClientAfterGoAway, 1)
		}
		c.mu.Unlock()
		return nil // ignored: RFC 9113, section 6.8
	}
	switch open := uint32(len(c.streams) + c.late); {
	case open >= c.limits.inForce():
		goesOn := c.overLimit(id)
		c.mu.Unlock()
		if !goesOn {
			return errClosing
		}
		return nil
	case c.limits.early(open):
		c.sim.clientFaults.count(ClientOverLimit, 1)
	}
	c.processed = id
	c.active = time.Now()
	st := c.newStream(id)
	c.mu.Unlock()
	c.sim.counters.inFlight.Add(1)
	if err := st.req.read(r.fields, r.listSize > maxHeaderListSize); err != nil {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol, Cause: err} // RFC 9113, section 8.1.1
	}
	r.upload = st
	if end {
		r.complete(st)
	}
	return nil
}

// trailers end a request; APNs ignores what they say.
func (r *reader) trailers(id uint32, st *stream, end bool) error {
	switch {
	case st == nil && r.c.wasReset(id):
		return nil
	case st == nil || st.complete:
		return breach(http2.ErrCodeStreamClosed, "HEADERS on closed stream %d", id)
	case !end:
		return breach(http2.ErrCodeProtocol, "second HEADERS on stream %d do not end it", id)
	}
	r.complete(st)
	return nil
}

// data takes a piece of a payload and gives the window back.
func (r *reader) data(f *http2.DataFrame) error {
	c := r.c
	id := f.StreamID
	c.mu.Lock()
	c.unacked += int64(f.Length)
	if c.unacked > initialWindow {
		c.mu.Unlock()
		return breach(http2.ErrCodeFlowControl, "connection window exceeded")
	}
	if c.unacked >= initialWindow/2 && !c.starved {
		c.giveBack()
	}
	st := r.upload
	if st == nil || st.id != id {
		st = c.streams[id]
	}
	if st == nil || c.streams[id] != st || st.complete {
		idle := id > c.lastSeen || id%2 == 0
		ignored := c.ignored(id)
		c.mu.Unlock()
		switch {
		case ignored:
			return nil
		case idle:
			return breach(http2.ErrCodeProtocol, "DATA on idle stream %d", id)
		}
		return breach(http2.ErrCodeStreamClosed, "DATA on closed stream %d", id)
	}
	c.mu.Unlock()
	st.received += int(f.Length)
	if st.received > initialWindow {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeFlowControl, Cause: errors.New("stream window exceeded")}
	}
	st.body = append(st.body, f.Data()...)
	if f.StreamEnded() || len(st.body) > st.req.maxPayload() {
		st.early = !f.StreamEnded()
		r.complete(st)
	}
	return nil
}

// settings takes the client's SETTINGS, or its acknowledgement of ours.
func (c *conn) settings(f *http2.SettingsFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.IsAck() {
		if !c.limits.ack() {
			return breach(http2.ErrCodeProtocol, "SETTINGS acknowledged that were not sent")
		}
		return nil
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			code := http2.ErrCodeProtocol
			if s.ID == http2.SettingInitialWindowSize {
				code = http2.ErrCodeFlowControl
			}
			return breach(code, "%v is not valid", s)
		}
		switch s.ID {
		case http2.SettingHeaderTableSize:
			c.enc.SetMaxDynamicTableSizeLimit(s.Val)
			c.enc.SetMaxDynamicTableSize(min(s.Val, headerTableSize))
		case http2.SettingInitialWindowSize:
			for _, st := range c.streams {
				st.window += int64(s.Val) - c.initial
			}
			c.initial = int64(s.Val)
		}
		return nil
	})
	if err != nil {
		return err
	}
	_ = c.framer.WriteSettingsAck() // into memory
	c.unblock()
	return nil
}

// ping answers a PING (rule C9).
func (c *conn) ping(f *http2.PingFrame) error {
	if f.IsAck() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.noPing {
		_ = c.framer.WritePing(true, f.Data) // into memory
	}
	if len(c.out.b) > 4<<20 {
		return breach(http2.ErrCodeEnhanceYourCalm, "more PINGs than answers read")
	}
	return nil
}

// windowUpdate lets more be sent.
func (c *conn) windowUpdate(f *http2.WindowUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID == 0 {
		c.window += int64(f.Increment)
		if c.window > 1<<31-1 {
			return breach(http2.ErrCodeFlowControl, "connection window exceeds 2^31-1")
		}
		c.unblock()
		return nil
	}
	if f.StreamID > c.lastSeen {
		return breach(http2.ErrCodeProtocol, "WINDOW_UPDATE on idle stream %d", f.StreamID)
	}
	if st := c.streams[f.StreamID]; st != nil {
		st.window += int64(f.Increment)
		if st.window > 1<<31-1 {
			return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeFlowControl}
		}
		c.unblock()
	}
	return nil
}

// cancelled takes a stream that the client gave up.
func (c *conn) cancelled(f *http2.RSTStreamFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID > c.lastSeen {
		return breach(http2.ErrCodeProtocol, "RST_STREAM on idle stream %d", f.StreamID)
	}
	if st := c.streams[f.StreamID]; st != nil {
		c.drop(st, "the client cancelled")
	}
	return nil
}

// randomID returns a version 4 UUID for a push that came without an apns-id.
func (r *reader) randomID() string {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:8], r.rng.Uint64())
	binary.BigEndian.PutUint64(raw[8:], r.rng.Uint64())
	return formatUUID(raw)
}
