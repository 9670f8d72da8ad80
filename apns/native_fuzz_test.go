package apns

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// ledger is a Source that gives out pushes without end and counts them back.
type ledger struct {
	mu    sync.Mutex
	left  int
	given int
	back  map[any]int
}

func (l *ledger) Take(dst []Request) (n, more int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n < len(dst) && l.left > 0 {
		device, _ := DeviceTokenFromBytes(make([]byte, 32))
		dst[n] = Request{Device: device, Badge: 1, Tag: l.given}
		l.left--
		l.given++
		n++
	}
	return n, l.left
}

func (l *ledger) Done(results []Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range results {
		l.back[r.Tag]++
	}
}

// script is a connection whose peer says what it was told to, then hangs up.
// Each part of it is said after another write of the client: the first after
// the preface, the second after the first pushes.
type script struct {
	net.Conn
	parts  [][]byte
	writes chan struct{} // one for each write, and closed by Close
	closed sync.Once
	mu     sync.Mutex // guards gone
	gone   bool
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.parts) == 0 {
		return 0, io.EOF
	}
	if _, ok := <-s.writes; !ok {
		return 0, io.EOF
	}
	n := copy(p, s.parts[0])
	s.parts = s.parts[1:] // a part fits into the reader's buffer, or is cut
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return 0, io.ErrClosedPipe
	}
	select {
	case s.writes <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (s *script) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	s.closed.Do(func() { close(s.writes) })
	return nil
}

func (s *script) SetWriteDeadline(time.Time) error { return nil }

// FuzzFrames has a peer say anything. Whatever it is, the connection ends, panics
// never, and returns every push exactly once.
func FuzzFrames(f *testing.F) {
	frame := func(t http2.FrameType, flags http2.Flags, id uint32, payload string) string {
		return string(appendFrameHeader(nil, len(payload), t, flags, id)) + payload
	}
	settings := frame(http2.FrameSettings, 0, 0, "\x00\x03\x00\x00\x00\x64")
	f.Add([]byte(frame(http2.FrameHeaders, 5, 1, "\x88") + frame(http2.FrameHeaders, 5, 3, "\x88")))
	f.Add([]byte(frame(http2.FrameHeaders, 4, 1, "\x8c") + frame(http2.FrameData, 1, 1, `{"reason":"BadTopic"}`)))
	f.Add([]byte(frame(http2.FrameHeaders, 0, 1, "\x88") + frame(http2.FrameContinuation, 4, 1, "")))
	f.Add([]byte(frame(http2.FrameRSTStream, 0, 1, "\x00\x00\x00\x07")))
	f.Add([]byte(frame(http2.FrameGoAway, 0, 0, "\x00\x00\x00\x00\x00\x00\x00\x00{\"reason\":\"Shutdown\"}")))
	f.Add([]byte(frame(http2.FrameWindowUpdate, 0, 0, "\x00\x00\x00\x01") + frame(http2.FramePing, 0, 0, "12345678")))
	f.Add([]byte(frame(http2.FrameSettings, 0, 0, "\x00\x04\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00") + frame(http2.FrameWindowUpdate, 0, 1, "\x00\x00\x00\x01")))
	f.Add([]byte(frame(http2.FramePushPromise, 4, 1, "\x00\x00\x00\x02\x88")))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	token, err := NewTokenSource(TokenConfig{Key: key, KeyID: "KEY0000001", TeamID: "TEAM000001"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		source := &ledger{left: 50, back: make(map[any]int)}
		pool, err := NewPool(Config{App: "mail", Topic: "com.example.mail", Token: token, Source: source, MaxStreams: 16,
			Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		peer := &script{parts: [][]byte{[]byte(settings), answer}, writes: make(chan struct{}, 4)}
		if len(answer) > 4 && answer[3] == byte(http2.FrameSettings) {
			peer.parts = peer.parts[1:] // it begins by itself
		}
		conn := newNativeConn(pool, peer, Credential{Certificate: new(tls.Certificate)})
		_ = conn.run(t.Context())
		for tag := range source.given {
			if source.back[tag] != 1 {
				t.Errorf("push %d came back %d times", tag, source.back[tag])
			}
		}
		if n := conn.inFlight.Load(); n != 0 {
			t.Errorf("%d pushes in flight after the end", n)
		}
	})
}

// FuzzProperNames compares what is read of a coded block without decoding it
// with its fields.
func FuzzProperNames(f *testing.F) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, name := range []string{"apns-id", "Apns-Id", "apns-id", "transfer-encoding", ":path"} {
		_ = enc.WriteField(hpack.HeaderField{Name: name, Value: "1"}) // into memory
		f.Add(bytes.Clone(block.Bytes()))
	}
	f.Add([]byte{0x40, 1, 'a', 1, 'b', 0xbe, 0x0f, 0x2f, 1, 'b'})
	f.Fuzz(func(t *testing.T, block []byte) {
		r := nativeReader{}
		if !r.properNames(block) {
			return
		}
		decoder := hpack.NewDecoder(defaultHPACKTable, func(field hpack.HeaderField) {
			if malformedName(field.Name) || field.IsPseudo() {
				t.Errorf("%x: has the field %q", block, field.Name)
			}
		})
		_, _ = decoder.Write(block) // what can't be decoded ends the connection
	})
}
