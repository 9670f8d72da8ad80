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
	if s := r.l.table.at(se.StreamID); s.id.Load() == se.StreamID {
		r.reset(se.StreamID, s, se.Error())
	}
	return nil
}

func (r *nativeReader) onSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	l := r.l
	l.mu.Lock()
	peer := l.peer
	l.mu.Unlock()
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
	l.greeted.Store(true)
	r.peerWindow = peer.initialWindow
	l.mu.Lock()
	acks := l.peer.acks + 1 // the writer may have taken some meanwhile
	l.peer = peer
	l.peer.acks = acks
	l.peerChanged = true
	l.mu.Unlock()
	if acks > maxSettingsAcks {
		return &connError{http2.ErrCodeEnhanceYourCalm, "too many SETTINGS"}
	}
	l.kick()
	return nil
}

func (r *nativeReader) onPing(f *http2.PingFrame) error {
	if f.IsAck() {
		r.l.pongs.Store(binary.BigEndian.Uint64(f.Data[:]))
		return nil
	}
	pong := appendFrameHeader(nil, 8, http2.FramePing, http2.FlagPingAck, 0)
	return r.control(append(pong, f.Data[:]...))
}

func (r *nativeReader) onWindowUpdate(f *http2.WindowUpdateFrame) error {
	l := r.l
	if f.StreamID == 0 {
		if l.credit.Load()-l.sent.Load()+int64(f.Increment) > maxWindow {
			return &connError{http2.ErrCodeFlowControl, "the connection's window is beyond 2^31-1"}
		}
		l.credit.Add(int64(f.Increment))
		if l.waiting.Load() == waitStreams {
			l.kick()
		}
		return nil
	}
	if err := r.checkStream(f.StreamID, "WINDOW_UPDATE"); err != nil {
		return err
	}
	s := l.table.at(f.StreamID)
	if s.id.Load() == f.StreamID && int64(f.Increment)+int64(r.peerWindow) > maxWindow+int64(maxPayloadSize) {
		r.resetWith(f.StreamID, s, http2.ErrCodeFlowControl, "the stream's window is beyond 2^31-1")
		return nil
	}
	if !l.smallWindows.Load() || s.id.Load() != f.StreamID {
		return nil
	}
	l.mu.Lock()
	l.streamCredits = append(l.streamCredits, streamCredit{f.StreamID, f.Increment})
	n := len(l.streamCredits)
	l.mu.Unlock()
	if n > maxControl {
		return &connError{http2.ErrCodeEnhanceYourCalm, "too many WINDOW_UPDATEs"}
	}
	l.kick()
	return nil
}

func (r *nativeReader) onReset(f *http2.RSTStreamFrame) error {
	if err := r.checkStream(f.StreamID, "RST_STREAM"); err != nil {
		return err
	}
	s := r.l.table.at(f.StreamID)
	if s.id.Load() != f.StreamID {
		return nil
	}
	cause := http2.StreamError{StreamID: f.StreamID, Code: f.ErrCode}
	if f.ErrCode == http2.ErrCodeRefusedStream {
		r.l.refusals.Add(1)
		r.end(f.StreamID, s, transportError(ReasonStreamRefused, cause))
		r.l.kick()
		return nil
	}
	r.end(f.StreamID, s, transportError(ReasonStreamReset, cause))
	r.l.drain()
	return nil
}

// onGoAway opens nothing more, and returns at once what the peer certainly did
// not process. A second GOAWAY may only lower the last stream (RFC 9113,
// section 6.8).
func (r *nativeReader) onGoAway(f *http2.GoAwayFrame) error {
	l := r.l
	before := l.lastGood.Load()
	last := min(f.LastStreamID, before)
	gone := &goAwayError{code: f.ErrCode}
	debug := f.DebugData()
	if gone.reason, _ = parseErrorBody(debug); gone.reason == "" {
		gone.text = cleanText(debug)
	}
	l.note(gone)
	l.drain()
	l.lastGood.Store(last)
	r.deliver()
	l.sweep(last, ReasonGoneAway, gone)
	l.kick()
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

// cause returns why the link ends, if that is known by now.
func (l *nativeLink) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// prove ends the phase of one stream.
func (l *nativeLink) prove() {
	l.proven.Store(true)
	l.pool.proved()
	l.kick()
}

// refused looks at what a refusal means for the connection and its credential.
func (l *nativeLink) refused(e *Error, now time.Time) {
	if provesCredential(e) && !l.proven.Load() {
		l.prove()
	}
	if l.pool.refusal(e, l.cred, l.token.Load(), now) {
		l.drain()
	}
}

// provesCredential reports whether an answer shows that APNs took the
// credential: it judged the push itself.
func provesCredential(e *Error) bool {
	return e.Status >= 400 && e.Status < 500 && e.Status != 403 && e.Reason != ReasonForeignAnswer &&
		e.Reason != ReasonTooManyProviderTokenUpdates && e.Status != 401
}
