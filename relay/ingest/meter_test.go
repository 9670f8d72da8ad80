package ingest

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"

	pb "badgerelay/proto/badgerelay/v1"
)

// TestMeterWeighsFramesWhereverTheyAreCut has the same frames come in pieces of
// every size.
func TestMeterWeighsFramesWhereverTheyAreCut(t *testing.T) {
	var wire bytes.Buffer
	wire.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&wire, nil)
	f.AllowIllegalWrites = true
	for _, err := range []error{
		f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}), // odd 20
		f.WriteSettingsAck(), // odd 20
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 2048)}), // work 50 + 40
		f.WriteContinuation(1, true, make([]byte, 1024)),                                        // work 20, odd 20
		f.WriteData(1, false, nil),                                                              // odd 20
		f.WriteData(1, false, bytes.Repeat([]byte{0, 0, 0, frameHeaders, 4}, 1024)),             // work 5
		f.WriteData(1, true, nil),
		f.WriteWindowUpdate(0, 1),                             // odd 1
		f.WritePing(false, [8]byte{}),                         // nothing more
		f.WritePing(true, [8]byte{}),                          // nothing more
		f.WriteRSTStream(1, http2.ErrCodeCancel),              // odd 20
		f.WritePriority(3, http2.PriorityParam{StreamDep: 1}), // odd 20
		f.WriteRawFrame(0x42, 0xff, 5, make([]byte, 1024)),    // work 1, odd 20
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	const frames = 13
	want := weight{work: frames*workFrame + 50 + 40 + 20 + 5 + 1, odd: 7*20 + 1, settings: 1}
	for size := 1; size <= wire.Len(); size++ {
		var m meter
		var got weight
		for rest := wire.Bytes(); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			w := m.follow(rest[:min(size, len(rest))])
			got.work, got.odd, got.settings = got.work+w.work, got.odd+w.odd, got.settings+w.settings
		}
		if got != want || !m.begun || !m.read.between() {
			t.Fatalf("in pieces of %d: %+v, want %+v; the meter %+v", size, got, want, m)
		}
	}
}

func FuzzMeter(f *testing.F) {
	f.Add([]byte(http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"), 3)
	f.Fuzz(func(t *testing.T, wire []byte, size int) {
		size = max(1, size)
		var whole, cut meter
		want := whole.follow(wire)
		var got weight
		for rest := wire; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			w := cut.follow(rest[:min(size, len(rest))])
			got.work, got.odd, got.settings = got.work+w.work, got.odd+w.odd, got.settings+w.settings
		}
		if got != want || whole != cut {
			t.Errorf("in pieces of %d: %+v and %+v, want %+v and %+v", size, got, cut, want, whole)
		}
	})
}

// repeated writes the frames again and again, until the relay has ended the
// connection, and says how often; at most so often.
func (p *rawPeer) repeated(most int, frames func() error) (n int) {
	for n < most && frames() == nil {
		n++
	}
	synctest.Wait()
	return n
}

// TestFloodsEndTheConnection repeats what no real client does, with a token
// accepted on the connection and without.
func TestFloodsEndTheConnection(t *testing.T) {
	for _, test := range []struct {
		name   string
		frames func(p *rawPeer) func() error
	}{
		{"empty DATA", func(p *rawPeer) func() error { return func() error { return p.WriteData(1, false, nil) } }},
		{"DATA of a byte", func(p *rawPeer) func() error { return func() error { return p.WriteData(1, false, []byte{0}) } }},
		{"PRIORITY", func(p *rawPeer) func() error {
			return func() error { return p.WritePriority(1, http2.PriorityParam{Weight: 1}) }
		}},
		{"unknown types", func(p *rawPeer) func() error { return func() error { return p.WriteRawFrame(0x42, 0, 0, nil) } }},
		{"resets of nothing", func(p *rawPeer) func() error { return func() error { return p.WriteRSTStream(1, 0) } }},
		{"WINDOW_UPDATE", func(p *rawPeer) func() error { return func() error { return p.WriteWindowUpdate(0, 1) } }},
		{"resets", func(p *rawPeer) func() error {
			id := uint32(1)
			return func() error {
				id += 2
				p.call(id, 0, true)
				return p.WriteRSTStream(id, http2.ErrCodeCancel)
			}
		}},
	} {
		for _, known := range []bool{false, true} {
			name, reason := test.name+" without a token", refusedStranger
			if known {
				name, reason = test.name+" with one", refusedFrames
			}
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					metrics := prometheus.NewRegistry()
					w := newWorld(t, func(c *Config) { c.Registerer = metrics })
					p := w.rawPeer(t, http2.ClientPreface)
					defer p.Close()
					if !known {
						p.token = "none"
					}
					go p.listen(true) // ends with the connection
					p.call(1, 0, false)
					synctest.Wait()
					most := int(odd.burst) + 20_000 // some are on their way
					if n := p.repeated(most, test.frames(p)); n == most {
						t.Fatal("the connection goes on")
					}
					if got, _ := sample(t, metrics, "ingest_transport_refusals_total", map[string]string{"reason": reason}); got != 1 {
						t.Errorf("%v counted as %s, want 1", got, reason)
					}
				})
			})
		}
	}
}

// TestClientsMayMeasureTheBandwidth has a client send a PING after each answer, as
// gRPC's own do (BDP estimation): more of them than a connection may have of other
// frames that are rare.
func TestClientsMayMeasureTheBandwidth(t *testing.T) {
	bubble(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		w := newWorld(t, func(c *Config) { c.Registerer = metrics })
		p := w.rawPeer(t, http2.ClientPreface)
		defer p.Close()
		answered := func(is func(http2.Frame) bool) {
			for {
				frame, err := p.ReadFrame()
				if err != nil {
					t.Fatalf("the connection ends: %v", err)
				}
				if is(frame) {
					return
				}
			}
		}
		for n := range uint32(odd.burst/oddFrame) + 1000 {
			id := 2*n + 1
			p.call(id, 0, true)
			p.must(p.WriteData(id, true, make([]byte, messagePrefix))) // a message without a field
			answered(func(f http2.Frame) bool {
				return f.Header().StreamID == id && f.Header().Flags.Has(http2.FlagHeadersEndStream)
			})
			p.must(p.WritePing(false, [8]byte{}))
			answered(func(f http2.Frame) bool { ping, ok := f.(*http2.PingFrame); return ok && ping.IsAck() })
		}
		wantTransportRefusals(t, metrics, "of a client that measures the bandwidth", nil)
	})
}

// TestModestStrangersStay has somebody without a token ask for the relay's health
// twice a second, for an hour.
func TestModestStrangersStay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		w := newWorld(t, func(c *Config) { c.Registerer = metrics })
		health := grpc_health_v1.NewHealthClient(w.conn)
		for range 2 * 3600 {
			if _, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second / 2)
		}
		wantTransportRefusals(t, metrics, "of an hour's probes", nil)
	})
}

// TestAgentsBesideStrangersKeepWorking has strangers flood from the address that
// agents have: an agent's connection goes on, and another agent is let in.
func TestAgentsBesideStrangersKeepWorking(t *testing.T) {
	bubble(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		w := newWorld(t, func(c *Config) { c.Registerer = metrics })
		l := bufconn.Listen(1 << 16)
		w.server.background.Go(func() { // ends with the server
			_ = w.server.grpc.Serve(w.server.limiter.limit(addressedListener{l, "192.0.2.1:1"}))
		})
		org := w.enrol("fabrikam.com", testKey(0))
		agent := func() pb.RelayServiceClient {
			conn, err := grpc.NewClient("passthrough:///relay", grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() }) // the test is over
			return pb.NewRelayServiceClient(conn)
		}
		publish := func(who string, a pb.RelayServiceClient) {
			t.Helper()
			within, cancel := context.WithTimeout(org.ctx(), slowWait)
			defer cancel()
			request := &pb.PublishRequest{AgentId: "test", Events: []*pb.Event{{Mailbox: "ann"}}}
			if _, err := a.Publish(within, request, grpc.WaitForReady(true)); err != nil {
				t.Errorf("%s: %v", who, err)
			}
		}
		first := agent()
		publish("the agent, before", first)
		for range 4 {
			p := newRawPeer(t, l, http2.ClientPreface, "none")
			go p.listen(true) // ends with the connection
			id := uint32(1)
			p.repeated(10_000, func() error {
				id += 2
				p.call(id, 0, true)
				return p.WriteRSTStream(id, http2.ErrCodeCancel)
			})
			publish("the agent, beside a stranger", first)
		}
		if n, _ := sample(t, metrics, "ingest_transport_refusals_total", map[string]string{"reason": refusedStranger}); n != 4 {
			t.Errorf("%v strangers sent away, want 4", n)
		}
		publish("another agent", agent())
	})
}

// TestHalfOpenGiveWay fills every place with connections that say nothing: after
// a second they have to make room.
func TestHalfOpenGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		k, err := newConnLimiter(&Config{MaxConnections: 3, MaxAddressConnections: 2, Registerer: metrics})
		if err != nil {
			t.Fatal(err)
		}
		g := &limitedListener{limiter: k}
		come := func(addr string) (*limitedConn, bool) {
			ours, theirs := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, theirs) }() // ends when we close
			c := &limitedConn{Conn: ours, limiter: k, addr: netip.MustParseAddr(addr), gone: make(chan struct{})}
			t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
			return c, g.admit(c)
		}
		want := func(why, addr string, in bool) *limitedConn {
			t.Helper()
			c, got := come(addr)
			if got != in {
				t.Errorf("%s: let in %t, want %t", why, got, in)
			}
			return c
		}
		first := want("the first", "192.0.2.1", true)
		second := want("the second", "192.0.2.1", true)
		second.begun()
		other := want("another address", "192.0.2.2", true)
		want("too early", "192.0.2.1", false)
		time.Sleep(halfOpenTime - time.Millisecond)
		want("still too early", "192.0.2.1", false)
		time.Sleep(time.Millisecond)
		want("in place of the first", "192.0.2.1", true).begun()
		if !isGone(first) || isGone(second) || isGone(other) {
			t.Errorf("gone: first %t, second %t, other %t; want the first alone", isGone(first), isGone(second), isGone(other))
		}
		want("all of the address have begun", "192.0.2.1", false)
		want("in place of the other", "192.0.2.3", true)
		if !isGone(other) || k.open() != 3 {
			t.Errorf("the other gone: %t; %d open, want 3", isGone(other), k.open())
		}
		if n, _ := sample(t, metrics, "ingest_connections_refused_total", map[string]string{"reason": refusedHalfOpen}); n != 2 {
			t.Errorf("%v counted as %s, want 2", n, refusedHalfOpen)
		}
		k.closeHalfOpen()
		if late := want("at the end", "192.0.2.4", true); !isGone(late) {
			t.Error("at the end a connection comes in and stays")
		}
	})
}

func isGone(c *limitedConn) bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// TestSlowedAddress begins connections from an address that is slowed: they take
// turns, and those that would wait too long are refused; a minute later it is as
// ever. Where agents are open behind it, more may begin.
func TestSlowedAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := newConnLimiter(&Config{})
		if err != nil {
			t.Fatal(err)
		}
		come := func() *limitedConn {
			c := &limitedConn{Conn: sink{}, limiter: k, addr: netip.MustParseAddr("192.0.2.1"), gone: make(chan struct{})}
			if reason, _ := k.enter(c, time.Now()); reason != "" {
				t.Fatal(reason)
			}
			return c
		}
		flooder := come()
		if wait := come().turn(time.Now()); wait != 0 {
			t.Errorf("before anything: %v to wait", wait)
		}
		flooder.slow()
		in, refused := 0, 0
		for range 100 {
			if come().turn(time.Now()) < 0 {
				refused++
			} else {
				in++
			}
		}
		if want := int(slowWait/time.Second)*slowHandshakes + 1; in != want || refused != 100-want {
			t.Errorf("%d may wait and %d are refused, want %d", in, refused, want)
		}
		time.Sleep(slowTime - time.Second)
		for range 100 {
			come().accept()
		}
		first, second := come().turn(time.Now()), come().turn(time.Now())
		if want := time.Second / (slowHandshakes + 10); first != 0 || second != want {
			t.Errorf("beside a hundred agents they wait for %v and %v, want 0 and %v", first, second, want)
		}
		time.Sleep(time.Second)
		for range 100 {
			if wait := come().turn(time.Now()); wait != 0 {
				t.Fatalf("a minute later: %v to wait", wait)
			}
		}
	})
}

// TestVisitsWithoutATokenSlowTheAddress begins and ends connections: a prober does
// that now and then, and a flooder a hundred times.
func TestVisitsWithoutATokenSlowTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := newConnLimiter(&Config{})
		if err != nil {
			t.Fatal(err)
		}
		addr := netip.MustParseAddr("192.0.2.1")
		visit := func(token bool) (slowed bool) {
			c := &limitedConn{Conn: sink{}, limiter: k, addr: addr, gone: make(chan struct{})}
			if reason, _ := k.enter(c, time.Now()); reason != "" {
				t.Fatal(reason)
			}
			if token {
				c.accept()
			}
			_ = c.Close() // a sink
			return c.near.slowed(time.Now())
		}
		for range 1000 {
			if visit(true) {
				t.Fatal("agents that come and go slow their address")
			}
		}
		for range 1000 {
			if visit(false) {
				t.Fatal("a probe each second slows its address")
			}
			time.Sleep(time.Second)
		}
		n := 0
		for !visit(false) {
			if n++; n > 100 {
				t.Fatal("a hundred visits at once do not slow the address")
			}
		}
		// Whoever is quiet is forgotten.
		time.Sleep(2 * slowTime)
		k.mu.Lock()
		defer k.mu.Unlock()
		k.at(netip.MustParseAddr("192.0.2.9"), time.Now())
		if k.neighbours[addr] != nil {
			t.Error("the address is never forgotten")
		}
	})
}
