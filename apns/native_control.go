package apns

import (
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// maxSettingsAcks is how many SETTINGS may wait to be acknowledged; ours.
const maxSettingsAcks = 1000

// readOther reads a frame that the Framer parses.
func (r *nativeReader) readOther(h http2.FrameHeader) error {
	frame, err := r.framer.ReadFrameForHeader(h)
	var se http2.StreamError
	if errors.As(err, &se) {
		return r.onStreamError(se)
	}
	if err != nil {
		return asConnError(r.framer, err)
	}
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		return r.onSettings(f)
	case *http2.PingFrame:
		return r.onPing(f)
	case *http2.WindowUpdateFrame:
		return r.onWindowUpdate(f)
	case *http2.RSTStreamFrame:
		return r.onReset(f)
	case *http2.GoAwayFrame:
		return r.onGoAway(f)
	case *http2.PushPromiseFrame:
		return protocolError("PUSH_PROMISE although push is off") // RFC 9113, section 8.4
	}
	return nil // PRIORITY and what we don't know is ignored (RFC 9113, section 5.5)
}

// onStreamError ends the one stream that a malformed frame concerns.
func (r *nativeReader) onStreamError(se http2.StreamError) error {
	if err := r.checkStream(se.StreamID, "malformed frame"); err != nil {
		return err
	}
	if s := r.c.table.at(se.StreamID); s.id.Load() == se.StreamID {
		r.reset(se.StreamID, s, se.Error())
	}
	return nil
}

func (r *nativeReader) onSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	c := r.c
	c.mu.Lock()
	peer := c.peer
	c.mu.Unlock()
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return asConnError(r.framer, err)
		}
		switch s.ID {
		case http2.SettingMaxConcurrentStreams:
			peer.maxStreams = s.Val
		case http2.SettingInitialWindowSize:
			peer.initialWindow = s.Val
		case http2.SettingHeaderTableSize:
			peer.headerTable = s.Val
		case http2.SettingMaxHeaderListSize:
			peer.headerList = max(s.Val, 1)
		case http2.SettingEnablePush:
			if s.Val != 0 { // RFC 9113, section 6.5.2
				return protocolError("a server can't enable push")
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	peer.received, r.settled = true, true
	c.established.Store(true)
	r.peerWindow = peer.initialWindow
	c.mu.Lock()
	acks := c.peer.acks + 1 // the writer may have taken some meanwhile
	c.peer = peer
	c.peer.acks = acks
	c.peerChanged = true
	c.mu.Unlock()
	if acks > maxSettingsAcks {
		return &connError{http2.ErrCodeEnhanceYourCalm, "too many SETTINGS"}
	}
	c.wake()
	return nil
}

func (r *nativeReader) onPing(f *http2.PingFrame) error {
	if f.IsAck() {
		r.c.pongs.Store(binary.BigEndian.Uint64(f.Data[:]))
		return nil
	}
	pong := appendFrameHeader(nil, 8, http2.FramePing, http2.FlagPingAck, 0)
	return r.control(append(pong, f.Data[:]...))
}

func (r *nativeReader) onWindowUpdate(f *http2.WindowUpdateFrame) error {
	c := r.c
	if f.StreamID == 0 {
		if c.credit.Load()-c.sent.Load()+int64(f.Increment) > maxWindow {
			return &connError{http2.ErrCodeFlowControl, "the connection's window is beyond 2^31-1"}
		}
		c.credit.Add(int64(f.Increment))
		if c.waiting.Load() == waitStreams {
			c.wake()
		}
		return nil
	}
	if err := r.checkStream(f.StreamID, "WINDOW_UPDATE"); err != nil {
		return err
	}
	s := c.table.at(f.StreamID)
	if s.id.Load() == f.StreamID && int64(f.Increment)+int64(r.peerWindow) > maxWindow+int64(maxPayloadSize) {
		r.resetWith(f.StreamID, s, http2.ErrCodeFlowControl, "the stream's window is beyond 2^31-1")
		return nil
	}
	if !c.smallWindows.Load() || s.id.Load() != f.StreamID {
		return nil
	}
	c.mu.Lock()
	c.streamCredits = append(c.streamCredits, streamCredit{f.StreamID, f.Increment})
	n := len(c.streamCredits)
	c.mu.Unlock()
	if n > maxControl {
		return &connError{http2.ErrCodeEnhanceYourCalm, "too many WINDOW_UPDATEs"}
	}
	c.wake()
	return nil
}

func (r *nativeReader) onReset(f *http2.RSTStreamFrame) error {
	if err := r.checkStream(f.StreamID, "RST_STREAM"); err != nil {
		return err
	}
	s := r.c.table.at(f.StreamID)
	if s.id.Load() != f.StreamID {
		return nil
	}
	cause := http2.StreamError{StreamID: f.StreamID, Code: f.ErrCode}
	if f.ErrCode == http2.ErrCodeRefusedStream {
		r.c.refusals.Add(1)
		r.end(f.StreamID, s, transportError(ReasonStreamRefused, cause))
		r.c.wake()
		return nil
	}
	r.end(f.StreamID, s, transportError(ReasonStreamReset, cause))
	r.c.drain()
	return nil
}

// onGoAway opens nothing more, and returns at once what the peer certainly did
// not process. A second GOAWAY may only lower the last stream (RFC 9113,
// section 6.8).
func (r *nativeReader) onGoAway(f *http2.GoAwayFrame) error {
	c := r.c
	before := c.lastGood.Load()
	last := min(f.LastStreamID, before)
	gone := &goAwayError{code: f.ErrCode}
	debug := f.DebugData()
	if gone.reason, _ = parseErrorBody(debug); gone.reason == "" {
		gone.text = cleanText(debug)
	}
	c.note(gone)
	c.drain()
	c.lastGood.Store(last)
	r.deliver()
	c.failStreams(last, ReasonGoneAway, gone)
	c.wake()
	return nil
}

// cleanText keeps what is fit to be logged of a GOAWAY's plain text.
func cleanText(b []byte) string {
	const most = 200
	if len(b) > most {
		b = b[:most]
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '.'
		}
		return c
	}, string(b))
}

// cause returns why the connection ends, if that is known by now.
func (c *nativeConn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// noteAuthenticated ends the phase of one stream.
func (c *nativeConn) noteAuthenticated() {
	c.authenticated.Store(true)
	c.pool.noteAuthenticated()
	c.wake()
}

// refused looks at what a refusal means for the connection and its credential.
func (c *nativeConn) refused(e *Error, now time.Time) {
	if authenticates(e) && !c.authenticated.Load() {
		c.noteAuthenticated()
	}
	if c.pool.refusal(e, c.cred, c.token.Load(), now) {
		c.drain()
	}
}

// provesCredential reports whether an answer shows that APNs took the
// credential: it judged the push itself.
func authenticates(e *Error) bool {
	return e.Status >= 400 && e.Status < 500 && e.Status != 403 && e.Reason != ReasonForeignAnswer &&
		e.Reason != ReasonTooManyProviderTokenUpdates && e.Status != 401
}
