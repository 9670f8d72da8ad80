package apns

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/net/http2"
)

// nativeWriter is the writing half of a connection, owned by one goroutine.
type nativeWriter struct {
	c       *nativeConn
	headers *headerEncoder
	token   *providerToken
	buf     []byte    // what the next write carries
	due     *Deadline // of what the next write carries, the earliest
	guard   *guard    // nil: the socket has none
	batch   []Request // what was taken last

	nextID  uint32
	started int64 // streams opened since the beginning
	window  int64 // connection window: credit seen minus bytes sent
	credit  int64 // of c.credit, what window includes
	stream  int64 // initial window of a stream
	limit   int64 // the peer's MAX_CONCURRENT_STREAMS, at most ours
	settled bool  // the first SETTINGS has come

	more bool // there was more to take than streams free

	blocked []blockedBody // bodies that wait for a window; nearly always empty

	expiresHour int64 // hour for which apns-expiration is set
	holdUntil   time.Time
	refusals    int64

	goneAway bool // streams above c.lastGood have failed
	leaveBy  time.Time
	pings    uint64    // PINGs sent
	pinged   time.Time // when the last was sent
	looked   time.Time // when the oldest push was last looked for
}

// blockedBody is a body, or its rest, that the flow-control windows don't allow
// yet. window is the stream's; it may be negative (RFC 9113, section 6.9.2).
type blockedBody struct {
	id     uint32
	body   []byte
	window int64
	due    *Deadline
}

// idlePing is how long a connection may be silent. Source: Apple, "Sending
// notification requests to APNs" (read 2026-11): "you may send a PING frame
// after an hour of inactivity".
const idlePing = time.Hour

// settingsTimeout is how long the first SETTINGS may take; ours.
const settingsTimeout = 10 * time.Second

func (w *nativeWriter) loop() {
	err := w.serve()
	if err == nil {
		return
	}
	var broken *connError
	if errors.As(err, &broken) {
		w.c.note(err) // before the peer, told so, hangs up
		w.buf = appendGoAway(w.buf, broken.code, broken.reason)
		_ = w.flush(time.Now()) // a courtesy only
	}
	w.c.fail(err)
}

// serve writes until the connection ends.
func (w *nativeWriter) serve() error {
	c := w.c
	w.preface()
	timer := time.NewTimer(0)
	defer timer.Stop()
	announced := false // c.waiting says that we wait
	for {
		now := time.Now()
		if err := w.obeyPeer(now); err != nil {
			return err
		}
		if err := w.fill(now); err != nil {
			return err
		}
		wait, err := w.watch(now)
		if err != nil {
			_ = w.flush(now) // a GOAWAY perhaps; the connection ends anyway
			return err
		}
		switch {
		case len(w.buf) > 0:
			if err := w.flush(now); err != nil {
				return err
			}
		case !announced || w.announcedWrong():
			// Say that we wait, then look once more for what came before.
			w.announce()
			announced = true
			continue
		default:
			timer.Reset(wait)
			select {
			case <-c.woken:
			case <-timer.C:
			case <-c.closed:
				return nil
			}
		}
		c.waiting.Store(waitBusy)
		announced = false
	}
}

// announce says what the writer is about to wait for.
func (w *nativeWriter) announce() {
	if w.mayOpen() && w.free() > 0 {
		w.c.waiting.Store(waitWork)
		return
	}
	w.c.waiting.Store(waitStreams)
	if w.more {
		w.pool().Wake() // another connection may be idle; else there is demand for one
	}
}

// announcedWrong reports whether streams have come free while the writer said that
// it waits for some: the reader may have looked just before it said so, and has
// not woken it. Whoever has work then sees a connection that is neither waiting for
// it nor busy, and wakes nobody.
func (w *nativeWriter) announcedWrong() bool {
	return w.c.waiting.Load() == waitStreams && w.mayOpen() && w.free() > 0
}

func (w *nativeWriter) pool() *Pool { return w.c.pool }

// preface is what a client begins with (RFC 9113, section 3.4).
func (w *nativeWriter) preface() {
	w.stream, w.credit, w.limit = initialWindow, initialWindow, 0
	w.buf = append(w.buf, http2.ClientPreface...)
	settings := []http2.Setting{
		{ID: http2.SettingEnablePush, Val: 0},
		{ID: http2.SettingMaxConcurrentStreams, Val: 0},
		{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList},
	}
	w.buf = appendFrameHeader(w.buf, 6*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		w.buf = binary.BigEndian.AppendUint16(w.buf, uint16(s.ID))
		w.buf = binary.BigEndian.AppendUint32(w.buf, s.Val)
	}
	w.buf = appendWindowUpdate(w.buf, connWindow-initialWindow)
}

// obeyPeer takes over what the reader has learned, and answers it.
func (w *nativeWriter) obeyPeer(now time.Time) error {
	c := w.c
	c.mu.Lock()
	w.takeControlLocked()
	credits := c.streamCredits
	c.streamCredits = nil
	peer, changed := c.peer, c.peerChanged
	c.peerChanged, c.peer.acks = false, 0
	c.mu.Unlock()

	if credit := c.credit.Load(); credit != w.credit {
		w.window += credit - w.credit
		w.credit = credit
	}
	if changed {
		if err := w.settle(peer); err != nil {
			return err
		}
		if need := w.headers.listSize(); peer.headerList != 0 && need > int(peer.headerList) {
			return errors.New("peer's limit of header lists, " + strconv.Itoa(int(peer.headerList)) + " bytes, is below what a push needs")
		}
	}
	for _, c := range credits {
		for i := range w.blocked {
			if w.blocked[i].id == c.id {
				w.blocked[i].window += int64(c.n)
				if w.blocked[i].window > maxWindow {
					return &connError{http2.ErrCodeFlowControl, "a stream's window is beyond 2^31-1"}
				}
			}
		}
	}
	if len(w.blocked) > 0 {
		w.unpark()
	}
	if n := c.refusals.Load(); n != w.refusals {
		w.refusals = n
		if n > 0 {
			// Refused although granted: let it rest, longer each time.
			w.holdUntil = now.Add(50 * time.Millisecond << min(n-1, 7))
		}
	}
	return nil
}

// takeControlLocked moves what the reader wants written into the next write.
// c.mu must be held.
func (w *nativeWriter) takeControlLocked() {
	w.buf = append(w.buf, w.c.control...)
	w.c.control = w.c.control[:0]
}

// settle obeys new SETTINGS and acknowledges them.
func (w *nativeWriter) settle(peer peerSettings) error {
	w.settled = true
	w.limit = int64(min(peer.maxStreams, uint32(w.pool().config.MaxStreams)))
	if d := int64(peer.initialWindow) - w.stream; d != 0 {
		w.stream += d
		for i := range w.blocked {
			if w.blocked[i].window += d; w.blocked[i].window > maxWindow { // RFC 9113, section 6.9.2
				return &connError{http2.ErrCodeFlowControl, "SETTINGS put a stream's window beyond 2^31-1"}
			}
		}
	}
	w.headers.setMaxTableSize(peer.headerTable)
	for range peer.acks {
		w.buf = appendFrameHeader(w.buf, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
	}
	w.grant()
	return nil
}

// grant publishes how many streams may be open: one until the first accepted
// answer where a token authenticates. Source: Apple, "Sending notification
// requests to APNs" (read 2026-11).
func (w *nativeWriter) grant() int64 {
	limit := w.limit
	if !w.settled {
		limit = 0
	} else if w.c.cred.Token != nil && !w.c.authenticated.Load() {
		limit = min(limit, 1)
	}
	if w.c.leaving.Load() {
		limit = 0
	}
	if w.c.granted.Load() != limit {
		w.c.granted.Store(limit)
	}
	return limit
}

// free returns how many streams may be opened now.
func (w *nativeWriter) free() int64 {
	return w.grant() - (w.started - w.c.ended.Load())
}

// mayOpen reports whether anything but the number of streams forbids opening.
func (w *nativeWriter) mayOpen() bool {
	return !w.c.leaving.Load() && len(w.blocked) == 0 && w.holdUntil.IsZero()
}

// fill takes as many pushes as there are streams free and encodes them.
func (w *nativeWriter) fill(now time.Time) error {
	c := w.c
	if !w.holdUntil.IsZero() && !now.Before(w.holdUntil) {
		w.holdUntil = time.Time{}
	}
	n := min(w.free(), maxBatch)
	if n <= 0 || !w.mayOpen() {
		return nil
	}
	if err := w.refreshHeaders(now); err != nil || c.leaving.Load() {
		return err
	}
	got, waiting := c.pool.take(w.batch[:n])
	w.more = waiting > 0
	if got == 0 {
		return nil
	}
	if c.leaving.Load() {
		// This may be what was put back when we began to leave.
		c.pool.handBack(w.batch[:got])
		clear(w.batch[:got])
		return nil
	}
	c.inFlight.Add(int64(got))
	c.pushed(now)
	written := int64(now.Sub(c.began))
	for i := range w.batch[:got] {
		w.open(&w.batch[i], written)
	}
	clear(w.batch[:got])
	w.started += int64(got)
	c.opened.Store(w.nextID)
	if w.nextID >= lastStreamID {
		c.drain()
	}
	return nil
}

// refreshHeaders brings the fields up to date that change now and then.
func (w *nativeWriter) refreshHeaders(now time.Time) error {
	if source := w.c.cred.Token; source != nil {
		token, err := source.get(now)
		if err != nil {
			return err
		}
		if token != w.token {
			if w.token != nil && token.early && token.bearer != w.token.bearer {
				w.c.drain()
				return nil
			}
			w.token = token
			w.c.token.Store(token)
			w.headers.set(fieldAuthorization, token.bearer)
		}
	}
	if hour := now.Unix() / 3600; hour != w.expiresHour {
		w.expiresHour = hour
		w.headers.set(fieldExpiration, strconv.FormatInt(w.pool().config.expiration(time.Unix(hour*3600+3599, 0)), 10))
	}
	return nil
}

// open encodes one push: HEADERS and DATA.
func (w *nativeWriter) open(r *Request, written int64) {
	id := w.nextID
	s := w.c.table.at(id)
	for s.id.Load() != slotFree {
		// A straggler holds the slot. There are twice as many as streams, so
		// this ends.
		id += 2
		s = w.c.table.at(id)
	}
	w.nextID = id + 2
	s.tag, s.written = r.Tag, written
	w.due = earlier(w.due, r.Deadline)

	start := len(w.buf)
	w.buf = appendFrameHeader(w.buf, 0, http2.FrameHeaders, http2.FlagHeadersEndHeaders, id)
	w.buf = w.headers.appendBlock(w.buf, r.Device, r.Priority)
	putFrameLength(w.buf[start:], len(w.buf)-start-frameHeaderLen)

	start = len(w.buf)
	w.buf = appendFrameHeader(w.buf, 0, http2.FrameData, http2.FlagDataEndStream, id)
	w.buf = appendPayload(w.buf, r.Badge)
	size := len(w.buf) - start - frameHeaderLen
	if int64(size) <= min(w.window, w.stream) {
		putFrameLength(w.buf[start:], size)
		w.window -= int64(size)
	} else {
		body := append([]byte(nil), w.buf[start+frameHeaderLen:]...)
		w.buf = w.buf[:start]
		w.c.smallWindows.Store(true)
		w.blocked = append(w.blocked, blockedBody{id, body, w.stream, r.Deadline})
		s.id.Store(id)
		w.unpark()
		return
	}
	s.id.Store(id)
}

// unpark writes what the windows allow of the bodies that wait.
func (w *nativeWriter) unpark() {
	rest := w.blocked[:0]
	for _, p := range w.blocked {
		if w.c.table.at(p.id).id.Load() != p.id {
			continue // ended meanwhile
		}
		n := min(w.window, p.window, int64(len(p.body)))
		if n > 0 {
			flags := http2.Flags(0)
			if int(n) == len(p.body) {
				flags = http2.FlagDataEndStream
			}
			w.buf = appendFrameHeader(w.buf, int(n), http2.FrameData, flags, p.id)
			w.buf = append(w.buf, p.body[:n]...)
			p.body, p.window, w.window = p.body[n:], p.window-n, w.window-n
			w.due = earlier(w.due, p.due)
		}
		if len(p.body) > 0 {
			rest = append(rest, p)
		}
	}
	clear(w.blocked[len(rest):])
	w.blocked = rest
}

// flush writes what was encoded, in one write. Where a push of it must not go out
// any more, nothing is written, and the connection ends: the header table that the
// peer knows and the numbers of streams allow nothing to be left out.
func (w *nativeWriter) flush(now time.Time) error {
	if len(w.buf) == 0 {
		return nil
	}
	w.c.sent.Store(w.credit - w.window)
	timeout := w.pool().config.AnswerTimeout + w.pool().config.PingTimeout
	if w.due != nil {
		left := w.due.left()
		if left <= 0 {
			return errTooLate
		}
		timeout = min(timeout, left)
	}
	if w.guard != nil {
		w.guard.due.Store(w.due)
	}
	_ = w.c.nc.SetWriteDeadline(now.Add(timeout)) // fails only on a closed connection: Write will say so
	_, err := w.c.nc.Write(w.buf)
	w.buf, w.due = w.buf[:0], nil
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errWriteStalled
	}
	return err
}

const (
	payloadStart, payloadEnd = `{"aps":{"badge":`, `}}`
	maxPayloadSize           = len(payloadStart) + len(payloadEnd) + 10 // with a badge of 32 bits
)

func appendPayload(dst []byte, badge uint32) []byte {
	dst = append(dst, payloadStart...)
	dst = strconv.AppendUint(dst, uint64(badge), 10)
	return append(dst, payloadEnd...)
}

const frameHeaderLen = 9 // RFC 9113, section 4.1

func appendFrameHeader(dst []byte, length int, t http2.FrameType, flags http2.Flags, id uint32) []byte {
	return append(dst, byte(length>>16), byte(length>>8), byte(length), byte(t), byte(flags),
		byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func putFrameLength(frame []byte, length int) {
	frame[0], frame[1], frame[2] = byte(length>>16), byte(length>>8), byte(length)
}

func appendWindowUpdate(dst []byte, n uint32) []byte {
	dst = appendFrameHeader(dst, 4, http2.FrameWindowUpdate, 0, 0)
	return binary.BigEndian.AppendUint32(dst, n)
}

func appendReset(dst []byte, id uint32, code http2.ErrCode) []byte {
	dst = appendFrameHeader(dst, 4, http2.FrameRSTStream, 0, id)
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

func appendGoAway(dst []byte, code http2.ErrCode, debug string) []byte {
	dst = appendFrameHeader(dst, 8+len(debug), http2.FrameGoAway, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(code))
	return append(dst, debug...)
}
