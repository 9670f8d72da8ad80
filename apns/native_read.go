package apns

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// nativeReader is the reading half of a connection, owned by one goroutine.
//
// HEADERS, CONTINUATION and DATA, which make up all but a few frames, are read
// in place out of the buffer, because http2.Framer allocates for each; their
// order is still checked by the Framer, and the other frames are parsed by it.
type nativeReader struct {
	c       *nativeConn
	br      *bufio.Reader
	framer  *http2.Framer
	decoder *hpack.Decoder

	settled    bool // the first frame, SETTINGS, has come
	recvWindow int64
	peerWindow uint32 // of a new stream, as the peer said last
	unsaid     int64  // bytes read of which the peer has not been told

	// The header block being read.
	block     []byte // fragments, when there is more than one
	stream    uint32
	endStream bool
	fragments int
	answer    answerFields

	name       bytes.Buffer // of a field in an accepted push's block
	distrusted bool         // a malformed field came, whose name may be in the decoder's table

	results []Result
}

// answerFields are the fields of one header block that matter.
type answerFields struct {
	status     int
	id         string
	retryAfter string
	length     int // content-length; -1: none
	size       int
	regular    bool // a field that is no pseudo-header has come
	bad        bool
}

const maxFragments = 64 // CONTINUATION frames of one block; ours

// loop reads frames until the connection ends and returns why. A peer that
// broke the protocol is told so.
func (r *nativeReader) loop() error {
	err := r.read()
	r.deliver()
	var broken *connError
	if errors.As(err, &broken) {
		r.c.note(err) // before the writer fails because of it
		now := time.Now()
		_ = r.c.nc.SetWriteDeadline(now.Add(time.Second)) // a courtesy only
		_, _ = r.c.nc.Write(appendGoAway(nil, broken.code, broken.reason))
	}
	return err
}

func (r *nativeReader) read() error {
	for {
		h, err := r.next()
		if err != nil {
			return err
		}
		if !r.settled && (h.Type != http2.FrameSettings || h.Flags.Has(http2.FlagSettingsAck)) {
			return protocolError("the first frame is not SETTINGS")
		}
		switch h.Type {
		case http2.FrameHeaders, http2.FrameContinuation, http2.FrameData:
			err = r.readInPlace(h)
		default:
			err = r.readOther(h)
		}
		if err != nil {
			return err
		}
	}
}

func protocolError(reason string) error { return &connError{http2.ErrCodeProtocol, reason} }

// next waits until a whole frame is in the buffer and reads its header. Before
// it waits, it delivers what has come.
func (r *nativeReader) next() (http2.FrameHeader, error) {
	if r.br.Buffered() < frameHeaderLen {
		r.deliver()
		if _, err := r.br.Peek(frameHeaderLen); err != nil {
			return http2.FrameHeader{}, err
		}
		r.c.lastFrame.Store(int64(time.Since(r.c.began)))
	}
	head, _ := r.br.Peek(frameHeaderLen)
	length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	if length > maxFrameSize {
		return http2.FrameHeader{}, &connError{http2.ErrCodeFrameSize, fmt.Sprintf("a frame of %d bytes", length)}
	}
	if r.br.Buffered() < frameHeaderLen+length {
		r.deliver()
		if _, err := r.br.Peek(frameHeaderLen + length); err != nil {
			return http2.FrameHeader{}, err
		}
	}
	h, err := r.framer.ReadFrameHeader()
	if err != nil {
		err = asConnError(r.framer, err)
	}
	return h, err
}

// asConnError turns the Framer's errors into ours.
func asConnError(f *http2.Framer, err error) error {
	var ce http2.ConnectionError
	switch {
	case errors.As(err, &ce):
		reason := "malformed frame"
		if detail := f.ErrorDetail(); detail != nil {
			reason = detail.Error()
		}
		return &connError{http2.ErrCode(ce), reason}
	case errors.Is(err, http2.ErrFrameTooLarge):
		return &connError{http2.ErrCodeFrameSize, "frame too large"}
	}
	return err
}

func (r *nativeReader) readInPlace(h http2.FrameHeader) error {
	payload, err := r.br.Peek(int(h.Length)) // it is in the buffer: see next
	if err != nil {
		return err
	}
	switch h.Type {
	case http2.FrameHeaders:
		err = r.onHeaders(h, payload)
	case http2.FrameContinuation:
		err = r.onFragment(h, payload)
	case http2.FrameData:
		err = r.onData(h, payload)
	}
	if err != nil {
		return err
	}
	_, err = r.br.Discard(int(h.Length))
	return err
}

// checkStream reports a frame on a stream that can't have one: not ours, or
// never opened (RFC 9113, section 5.1).
func (r *nativeReader) checkStream(id uint32, what string) error {
	if id&1 == 0 || id >= r.c.opened.Load() {
		return protocolError(fmt.Sprintf("%s on idle stream %d", what, id))
	}
	return nil
}

// unpad removes the padding of HEADERS and DATA (RFC 9113, section 6.1).
func unpad(payload []byte) ([]byte, error) {
	if len(payload) == 0 {
		return nil, &connError{http2.ErrCodeFrameSize, "no pad length"}
	}
	pad := int(payload[0])
	if payload = payload[1:]; pad > len(payload) {
		return nil, protocolError("more padding than payload")
	}
	return payload[:len(payload)-pad], nil
}

func (r *nativeReader) onHeaders(h http2.FrameHeader, payload []byte) (err error) {
	if err := r.checkStream(h.StreamID, "HEADERS"); err != nil {
		return err
	}
	if h.Flags.Has(http2.FlagHeadersPadded) {
		if payload, err = unpad(payload); err != nil {
			return err
		}
	}
	if h.Flags.Has(http2.FlagHeadersPriority) {
		if len(payload) < 5 {
			return &connError{http2.ErrCodeFrameSize, "HEADERS too short for its priority"}
		}
		payload = payload[5:]
	}
	r.stream, r.endStream = h.StreamID, h.Flags.Has(http2.FlagHeadersEndStream)
	if h.Flags.Has(http2.FlagHeadersEndHeaders) {
		return r.onBlock(payload)
	}
	r.block, r.fragments = append(r.block[:0], payload...), 0
	return nil
}

func (r *nativeReader) onFragment(h http2.FrameHeader, payload []byte) error {
	r.fragments++
	if len(r.block)+len(payload) > maxHeaderBlock || r.fragments > maxFragments {
		return &connError{http2.ErrCodeEnhanceYourCalm, "header block too long"}
	}
	r.block = append(r.block, payload...)
	if !h.Flags.Has(http2.FlagContinuationEndHeaders) {
		return nil
	}
	return r.onBlock(r.block)
}

// field is the decoder's callback.
func (r *nativeReader) field(f hpack.HeaderField) {
	a := &r.answer
	if a.size += int(f.Size()); a.size > maxHeaderList {
		a.bad = true
		return
	}
	if f.Name == ":status" {
		n, err := strconv.Atoi(f.Value)
		if err != nil || n < 100 || n > 999 || len(f.Value) != 3 || a.status != 0 || a.regular {
			a.bad = true
			return
		}
		a.status = n
		return
	}
	a.regular = true
	switch f.Name {
	case "apns-id":
		a.id = f.Value
	case "retry-after":
		a.retryAfter = f.Value
	case "content-length":
		n, err := strconv.ParseUint(f.Value, 10, 31)
		a.bad = a.bad || err != nil || a.length >= 0 && a.length != int(n)
		a.length = int(n)
	}
	a.bad = a.bad || malformedField(f.Name, f.Value)
}

// malformedField reports fields that no answer may have: names and values out
// of RFC 9113, section 8.2.1, pseudo-headers other than :status (section 8.3),
// and what HTTP/1 says of its connection (section 8.2.2).
func malformedField(name, value string) bool {
	return malformedName(name) || strings.ContainsAny(value, "\x00\r\n") || strings.Trim(value, " \t") != value
}

func malformedName[T string | []byte](name T) bool {
	switch string(name) {
	case "", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return true
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == ':' || 'A' <= c && c <= 'Z' {
			return true
		}
	}
	return false
}

// statusOK is :status 200 in the static table, the first byte of nearly every
// answer.
const statusOK = hpackIndexed | 8

// onBlock takes a whole header block.
func (r *nativeReader) onBlock(block []byte) error {
	s := r.c.table.at(r.stream)
	live := s.id.Load() == r.stream
	// An accepted push needs nothing but its status. The block still goes
	// through the decoder, whose table must stay the peer's; without emitting
	// it makes no strings. What may be malformed takes the long way, which tells.
	brief := live && len(block) > 0 && block[0] == statusOK && r.endStream && s.status == 0 && !isDirect(s.tag) &&
		!r.distrusted && r.properNames(block[1:])
	r.answer = answerFields{length: -1}
	r.decoder.SetEmitEnabled(!brief)
	if _, err := r.decoder.Write(block); err != nil {
		return &connError{http2.ErrCodeCompression, err.Error()}
	}
	if err := r.decoder.Close(); err != nil {
		return &connError{http2.ErrCodeCompression, err.Error()}
	}
	if !live {
		return nil // the late answer of a push that was given up
	}
	if brief {
		r.accepted(r.stream, s)
		return nil
	}
	return r.onAnswer(s)
}

// Static table entries (RFC 7541, appendix A): the pseudo-header fields come
// first, and one name is of HTTP/1's connections.
const (
	staticLastPseudo       = 14
	staticTransferEncoding = 57
)

// properNames reports whether an answer may have each field of a coded block.
// Names from the dynamic table were looked at when they went there.
func (r *nativeReader) properNames(block []byte) bool {
	for len(block) > 0 {
		first, bits := block[0], 4
		switch {
		case first&hpackIndexed != 0:
			bits = 7
		case first&hpackIncremental != 0:
			bits = 6
		case first&hpackTableSize != 0:
			return false
		}
		index, rest := hpackInt(block, bits)
		isLiteral := first&hpackIndexed == 0
		switch {
		case index == 0 && isLiteral && rest != nil:
			var name []byte
			if name, rest = r.coded(rest); malformedName(name) {
				return false
			}
		case index <= staticLastPseudo, index == staticTransferEncoding:
			return false
		}
		if block = rest; isLiteral {
			length, value := hpackInt(block, 7)
			if length > len(value) {
				return false
			}
			block = value[length:]
		}
	}
	return true
}

// coded reads a string of a block (RFC 7541, section 5.2). It is good until the
// next call; empty: it can't be read.
func (r *nativeReader) coded(block []byte) (s, rest []byte) {
	length, value := hpackInt(block, 7)
	if len(block) == 0 || length > len(value) {
		return nil, nil
	}
	s, rest = value[:length], value[length:]
	if block[0]&0x80 == 0 {
		return s, rest
	}
	r.name.Reset()
	if _, err := hpack.HuffmanDecode(&r.name, s); err != nil {
		return nil, nil
	}
	return r.name.Bytes(), rest
}

// hpackInt reads an integer with a prefix of so many bits (RFC 7541, section
// 5.1). One that is cut off, or larger than a header block, is 0 at the end of
// the block.
func hpackInt(b []byte, bits int) (int, []byte) {
	if len(b) == 0 {
		return 0, nil
	}
	full := 1<<bits - 1
	n := int(b[0]) & full
	b = b[1:]
	if n < full {
		return n, b
	}
	for shift := 0; len(b) > 0 && shift < 21; shift += 7 {
		c := b[0]
		b = b[1:]
		if n += int(c&0x7f) << shift; c&0x80 == 0 {
			return n, b
		}
	}
	return 0, nil
}

func (r *nativeReader) onAnswer(s *slot) error {
	a := &r.answer
	trailers := s.status != 0
	switch {
	case a.bad, a.status == 0 && !trailers, a.status != 0 && trailers, trailers && !r.endStream:
		r.distrusted = true
		r.reset(r.stream, s, "malformed header fields")
		return nil
	case a.status >= 100 && a.status < 200:
		if r.endStream || a.status == 101 { // RFC 9113, sections 8.1 and 8.6
			r.reset(r.stream, s, "an interim answer ends the stream or switches protocols")
		}
		return nil
	}
	if !trailers {
		s.status = int16(a.status)
		s.more = &answerHeaders{id: a.id, retryAfter: a.retryAfter, length: a.length}
	}
	if r.endStream {
		r.complete(r.stream, s)
	}
	return nil
}

func (r *nativeReader) onData(h http2.FrameHeader, payload []byte) (err error) {
	if err := r.checkStream(h.StreamID, "DATA"); err != nil {
		return err
	}
	// Padding counts (RFC 9113, section 6.9.1).
	if r.recvWindow -= int64(h.Length); r.recvWindow < 0 {
		return &connError{http2.ErrCodeFlowControl, "more DATA than the connection's window"}
	}
	if r.unsaid += int64(h.Length); r.unsaid >= connWindow/2 {
		if err := r.control(appendWindowUpdate(nil, uint32(r.unsaid))); err != nil {
			return err
		}
		r.recvWindow += r.unsaid
		r.unsaid = 0
	}
	if h.Flags.Has(http2.FlagDataPadded) {
		if payload, err = unpad(payload); err != nil {
			return err
		}
	}
	s := r.c.table.at(h.StreamID)
	if s.id.Load() != h.StreamID {
		return nil
	}
	if s.status == 0 {
		r.reset(h.StreamID, s, "DATA before HEADERS")
		return nil
	}
	if s.size += int32(h.Length); s.size > initialWindow {
		return &connError{http2.ErrCodeFlowControl, "more DATA than the stream's window"}
	}
	if room := maxErrorBody - len(s.body); room > 0 {
		s.body = append(s.body, payload[:min(room, len(payload))]...)
	}
	s.more.got += len(payload)
	switch {
	case h.Flags.Has(http2.FlagDataEndStream):
		r.complete(h.StreamID, s)
	case s.more.got > maxErrorBody:
		// More than Apple ever says: the status has to do, and the stream is not
		// left to the peer's leisure.
		_ = r.control(appendReset(nil, h.StreamID, http2.ErrCodeCancel)) // a full pile ends the connection at the next frame
		s.more.length = -1
		r.complete(h.StreamID, s)
	}
	return nil
}

// accepted ends a push that APNs took.
func (r *nativeReader) accepted(id uint32, s *slot) {
	if !r.c.authenticated.Load() {
		r.c.noteAuthenticated()
	}
	if r.c.refusals.Load() != 0 {
		r.c.refusals.Store(0)
	}
	r.end(id, s, nil)
}

// complete ends a push whose answer is whole.
func (r *nativeReader) complete(id uint32, s *slot) {
	if s.more.length >= 0 && s.more.length != s.more.got { // RFC 9113, section 8.1.1
		r.reset(id, s, "a body of another size than its content-length")
		return
	}
	// APNs' 200 has no body (Apple, "Handling notification responses from APNs",
	// read 2026-11); a page that was put in its place has one, and no apns-id.
	if s.status == 200 && (s.more.got == 0 || s.more.id != "") {
		if d, ok := s.tag.(*directPush); ok {
			d.id = s.more.id
		}
		r.accepted(id, s)
		return
	}
	now := time.Now()
	e := newError(int(s.status), s.body, s.more.id, parseRetryAfter(s.more.retryAfter, now))
	r.c.refused(e, now)
	r.end(id, s, e)
}

// end puts the result of a push on the pile and frees its stream.
func (r *nativeReader) end(id uint32, s *slot, e *Error) {
	if !s.claim(id) {
		return // it has failed meanwhile
	}
	r.results = append(r.results, Result{Tag: s.tag, Err: e, WrittenAt: r.c.at(s.written)})
	s.release()
}

// reset ends a push whose answer is no answer, and tells the peer.
func (r *nativeReader) reset(id uint32, s *slot, reason string) {
	r.resetWith(id, s, http2.ErrCodeProtocol, reason)
}

func (r *nativeReader) resetWith(id uint32, s *slot, code http2.ErrCode, reason string) {
	_ = r.control(appendReset(nil, id, code)) // a full pile ends the connection at the next frame
	r.end(id, s, transportError(ReasonBadAnswer, errors.New(reason)))
	r.c.drain()
}

// deliver hands over what has come, and wakes the writer if it waits for
// streams.
func (r *nativeReader) deliver() {
	c := r.c
	if len(r.results) == 0 {
		return
	}
	c.ended.Add(int64(len(r.results)))
	c.inFlight.Add(-int64(len(r.results)))
	c.pool.finish(r.results)
	clear(r.results)
	r.results = r.results[:0]
	if c.leaving.Load() || c.waiting.Load() == waitStreams {
		c.wake()
	}
}

// control queues a frame for the writer.
func (r *nativeReader) control(frame []byte) error {
	c := r.c
	c.mu.Lock()
	full := len(c.control)+len(frame) > maxControl
	if !full {
		c.control = append(c.control, frame...)
	}
	c.mu.Unlock()
	if full {
		return &connError{http2.ErrCodeEnhanceYourCalm, "too many control frames"}
	}
	c.wake()
	return nil
}
