package ingest

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
)

// wantTransportRefusals checks every reason's count; those that are not named are 0.
func wantTransportRefusals(t *testing.T, g prometheus.Gatherer, why string, want map[string]float64) {
	t.Helper()
	for _, reason := range transportReasons {
		got, found := sample(t, g, "ingest_transport_refusals_total", map[string]string{"reason": reason})
		if got != want[reason] || !found {
			t.Errorf("%s: %v counted as %s (there: %t), want %v", why, got, reason, found, want[reason])
		}
	}
}

// sink is a connection that takes everything.
type sink struct{ net.Conn }

func (sink) Write(p []byte) (int, error) { return len(p), nil }
func (sink) Close() error                { return nil }

// TestFramesAreFollowedWhereverTheyAreCut writes the same frames in pieces of
// every size up to that of a GOAWAY that is looked at, and at once.
func TestFramesAreFollowedWhereverTheyAreCut(t *testing.T) {
	var wire bytes.Buffer
	f := http2.NewFramer(&wire, nil)
	for _, err := range []error{
		f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 250}),
		f.WriteSettings(),
		f.WriteData(1, false, bytes.Repeat([]byte{0, 0, 4, frameReset, 0}, 100)),
		f.WriteRSTStream(1, http2.ErrCodeFrameSize),
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: make([]byte, 40), EndHeaders: true}),
		f.WriteRSTStream(3, http2.ErrCodeRefusedStream),
		f.WriteRSTStream(5, http2.ErrCodeNo),
		f.WriteRSTStream(7, http2.ErrCodeCancel),
		f.WriteRSTStream(9, http2.ErrCodeFlowControl),
		f.WriteRSTStream(11, http2.ErrCodeInternal),
		f.WriteData(13, true, nil),
		f.WritePing(true, [8]byte{}),
		f.WriteSettingsAck(),
		f.WriteGoAway(13, http2.ErrCodeEnhanceYourCalm, []byte("too_many_pings, and then some")),
		f.WriteGoAway(13, http2.ErrCodeEnhanceYourCalm, nil),
		f.WriteSettingsAck(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	sizes := []int{wire.Len()}
	for size := range frameHeader + goAwayTold + 1 {
		sizes = append(sizes, size+1)
	}
	for _, size := range sizes {
		metrics := prometheus.NewRegistry()
		tr, err := newTransport(&Config{Registerer: metrics}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := &transportConn{Conn: sink{}, refusals: tr.refusals}
		for rest := wire.Bytes(); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			_, _ = c.Write(rest[:min(size, len(rest))]) // a sink takes everything
		}
		if !c.written.between() {
			t.Fatalf("in pieces of %d: %d bytes to skip and %d of a frame left", size, c.written.skip, c.written.have)
		}
		wantTransportRefusals(t, metrics, "", map[string]float64{refusedMetadata: 1, refusedStreams: 1, refusedProtocol: 1, refusedOther: 1, refusedPings: 1})
		if t.Failed() {
			t.Fatalf("in pieces of %d", size)
		}
	}
}

// rawPeer is a client that speaks frames.
type rawPeer struct {
	net.Conn
	*http2.Framer
	t     *testing.T
	token string
}

// rawPeer connects and says the preface, unless that is what is wrong.
func (w *world) rawPeer(t *testing.T, preface string) *rawPeer {
	t.Helper()
	return newRawPeer(t, w.listener, preface, w.enrol("fabrikam.com", testKey(0)).token(time.Hour))
}

func newRawPeer(t *testing.T, l *bufconn.Listener, preface, token string) *rawPeer {
	t.Helper()
	nc, err := l.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := &rawPeer{nc, http2.NewFramer(nc, nc), t, token}
	p.AllowIllegalWrites = true
	if _, err := io.WriteString(nc, preface); err != nil {
		t.Fatal(err)
	}
	if preface == http2.ClientPreface {
		p.must(p.WriteSettings())
	}
	return p
}

func (p *rawPeer) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// call begins a call that carries some more metadata of a kilobyte each; packed,
// only the first costs that much. That the relay has enough in the midst of it
// shows when reading.
func (p *rawPeer) call(id uint32, more int, packed bool) {
	p.t.Helper()
	fields := [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", pb.RelayService_Publish_FullMethodName}, {":authority", "x"},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"authorization", "Bearer " + p.token},
	}
	for range more {
		fields = append(fields, [2]string{"x", strings.Repeat("~", 1000)})
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range fields {
		p.must(encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: !packed}))
	}
	first := block.Next(16 << 10)
	err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndHeaders: block.Len() == 0})
	for err == nil && block.Len() > 0 {
		next := block.Next(16 << 10)
		err = p.WriteContinuation(id, block.Len() == 0, next)
	}
}

// listen reads until the relay ends the connection; answering keeps it alive.
func (p *rawPeer) listen(answer bool) {
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			return
		}
		if ping, ok := frame.(*http2.PingFrame); ok && answer && !ping.IsAck() {
			_ = p.WritePing(true, ping.Data) // the end shows when reading
		}
	}
}

// TestTransportRefusalsAreCounted has a peer do each thing that gRPC refuses
// by itself.
func TestTransportRefusalsAreCounted(t *testing.T) {
	for _, test := range []struct {
		name    string
		preface string // empty: HTTP/2's
		act     func(p *rawPeer)
		answer  bool          // answers PINGs
		after   time.Duration // the end comes then, and not a millisecond sooner
		want    string        // empty: nothing is counted
	}{
		{name: "says nothing", preface: "PRI * HTTP", after: 10 * time.Second, want: refusedPreface},
		{name: "speaks HTTP/1.1", preface: "GET / HTTP/1.1\r\nHost: relay\r\n\r\n", want: refusedPreface},
		{name: "leaves before HTTP/2", preface: "PRI", act: func(p *rawPeer) { _ = p.Close() }},
		{name: "leaves", act: func(p *rawPeer) { _ = p.Close() }},
		{name: "pings", act: func(p *rawPeer) {
			for range 5 {
				p.must(p.WritePing(false, [8]byte{}))
			}
		}, want: refusedPings},
		{name: "settings", act: func(p *rawPeer) {
			for range maxSettings + 1 {
				if p.WriteSettings() != nil {
					return // the relay had enough
				}
			}
		}, want: refusedSettings},
		{name: "settings, not too many at once", act: func(p *rawPeer) {
			for range 3 {
				for range maxSettings - 1 { // the preface has one too
					p.must(p.WriteSettings())
				}
				p.pass()
			}
			p.after()
		}},
		{name: "an even stream", act: func(p *rawPeer) { p.call(2, 0, false) }, want: refusedProtocol},
		{name: "a window of nothing", act: func(p *rawPeer) { p.must(p.WriteWindowUpdate(0, 0)) }, want: refusedProtocol},
		{name: "endless metadata", act: func(p *rawPeer) { p.call(1, 200, false) }, want: refusedProtocol},
		{name: "metadata that unpacks", act: func(p *rawPeer) { p.call(1, 34, true); p.after() }, want: refusedMetadata},
		{name: "a call too many", act: func(p *rawPeer) {
			for i := range uint32(251) {
				p.call(2*i+1, 0, false)
			}
			p.after()
		}, want: refusedStreams},
		{name: "half a message", act: func(p *rawPeer) {
			p.call(1, 0, false)
			p.must(p.WriteData(1, true, []byte{0}))
			p.after()
		}, want: refusedUnreadable},
		{name: "idle", answer: true, after: 15 * time.Minute, want: refusedIdle},
		{name: "no answer", after: 2 * silence, want: refusedKeepalive},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				metrics := prometheus.NewRegistry()
				w := newWorld(t, func(c *Config) { c.Registerer = metrics })
				if test.preface == "" {
					test.preface = http2.ClientPreface
				}
				p := w.rawPeer(t, test.preface)
				defer p.Close()
				go p.listen(test.answer) // ends with the connection
				if test.act != nil {
					test.act(p)
				}
				want := map[string]float64{}
				if test.want != "" {
					want[test.want] = 1
				}
				if test.after > 0 {
					time.Sleep(test.after - time.Millisecond)
					synctest.Wait()
					wantTransportRefusals(t, metrics, "too early", nil)
					time.Sleep(time.Millisecond)
				}
				synctest.Wait()
				wantTransportRefusals(t, metrics, "at the time", want)
				time.Sleep(10 * time.Second) // gRPC closes a connection a second after it said so
				synctest.Wait()
				wantTransportRefusals(t, metrics, "later", want)
			})
		})
	}
}

// pass lets a minute go by, in which the peer says something now and then, so
// that it has no PINGs to answer.
func (p *rawPeer) pass() {
	p.t.Helper()
	for range 2 * time.Minute / silence {
		p.must(p.WriteWindowUpdate(0, 1))
		time.Sleep(silence / 2)
	}
}

// after leaves in good order, so that only what was done before is counted.
func (p *rawPeer) after() {
	p.t.Helper()
	synctest.Wait()
	_ = p.Close() // to leave is the peer's right
}

// TestFloodOfCallsEndsTheConnection goes on beginning calls beyond those that may
// be open: as many as may be refused in a minute, the next minute again, and then
// without end.
func TestFloodOfCallsEndsTheConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		w := newWorld(t, func(c *Config) { c.Registerer = metrics })
		p := w.rawPeer(t, http2.ClientPreface)
		go p.listen(false) // ends with the connection
		next := uint32(1)
		begin := func(calls int) {
			for range calls {
				p.call(next, 0, false)
				next += 2
			}
			synctest.Wait()
		}
		begin(250)
		for range 2 {
			begin(maxRefused)
			p.pass()
		}
		if err := p.WritePing(true, [8]byte{}); err != nil {
			t.Fatalf("after two minutes with few enough calls: %v", err)
		}
		begin(1500)
		if _, err := p.Write(make([]byte, 1)); err == nil {
			t.Error("the connection is open after 1,500 calls that never end")
		}
		n, _ := sample(t, metrics, "ingest_transport_refusals_total", map[string]string{"reason": refusedStreams})
		if n < 3*maxRefused { // the connection is the last; gRPC writes several at once
			t.Errorf("%v calls and connections refused, want at least %d", n, 3*maxRefused)
		}
	})
}

func TestUnknownMethodsAreCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		w := newWorld(t, func(c *Config) { c.Registerer = metrics })
		ctx := w.enrol("fabrikam.com", testKey(0)).ctx()
		for i, method := range []string{"/wordpress.Login/Try", "/badgerelay.v1.RelayService/Nothing", "/badgerelay.v1.AdminService/AddOrganization"} {
			if err := w.callRaw(ctx, method, nil); status.Code(err) != codes.Unimplemented {
				t.Errorf("%s: got %v, want it unimplemented", method, err)
			}
			wantTransportRefusals(t, metrics, method, map[string]float64{refusedMethod: float64(i + 1)})
		}
	})
}

// TestOrderlyEndIsNoRefusal drains the relay under an open connection.
func TestOrderlyEndIsNoRefusal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		w := newWorld(t, func(c *Config) { c.Registerer = metrics })
		w.enrol("fabrikam.com", testKey(0)).connect()
		w.stop()
		<-w.stopped
		wantTransportRefusals(t, metrics, "after the drain", nil)
	})
}

// TestGiantMessagesAreCounted sends what gRPC answers by itself, to a unary
// method and to one that streams.
func TestGiantMessagesAreCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		w := newWorld(t, func(c *Config) { c.Registerer = metrics })
		ctx := w.enrol("fabrikam.com", testKey(0)).ctx()
		want := map[string]float64{}
		for _, method := range []string{pb.RelayService_Publish_FullMethodName, pb.RelayService_Stream_FullMethodName} {
			if err := w.callRaw(ctx, method, make([]byte, service.MaxMessageSize+1)); status.Code(err) != codes.ResourceExhausted {
				t.Errorf("%s: got %v, want it refused for its size", method, err)
			}
			want[refusedTooLarge]++
			wantTransportRefusals(t, metrics, method, want)
		}
	})
}
