package apnstest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// bubble runs f with a simulator and a trusted client inside a bubble.
func bubble(t *testing.T, change func(*Config), f func(t *testing.T, s *Simulator, c *client)) {
	t.Helper()
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, change)
		defer s.Close()
		c := trusted(t, s)
		defer c.close()
		f(t, s, c)
	})
}

func TestTLS(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, nil)
		defer s.Close()
		if _, err := tryConnect(t, s, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11 }); err == nil {
			t.Error("TLS 1.1: accepted, want refused (rule C1)")
		}
		if _, err := tryConnect(t, s, func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }); err == nil {
			t.Error("ALPN http/1.1: accepted, want refused (rule C1)")
		}
		if _, err := tryConnect(t, s, func(c *tls.Config) { c.NextProtos = []string{"spdy/3"} }); err == nil {
			t.Error("ALPN spdy/3: accepted, want refused (rule C1)")
		}
		if got := s.Stats().Handshakes; got != 0 {
			t.Errorf("handshakes: got %d, want 0 (rule C1)", got)
		}
	})
}

// TestWithoutALPN speaks HTTP/2 at once, as clients do that know APNs speaks
// nothing else.
func TestWithoutALPN(t *testing.T) {
	fixture()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, nil)
			defer s.Close()
			noALPN := func(c *tls.Config) { c.NextProtos, c.MaxVersion = nil, version }
			c := connect(t, s, noALPN)
			defer c.close()
			if got := c.push(badgeOf3); got != "200" {
				t.Errorf("%s: got %s, want 200", tls.VersionName(version), got)
			}
			strict := newSim(t, func(c *Config) { c.Strict = true })
			defer strict.Close()
			if c, err := tryConnect(t, strict, noALPN); err == nil {
				<-c.ended
			}
			if got := strict.Stats().Handshakes; got != 0 {
				t.Errorf("%s, strict: got %d handshakes, want 0", tls.VersionName(version), got)
			}
		})
	}
}

// TestFirstStream opens two streams before the first valid token was answered.
func TestFirstStream(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, nil)
		defer s.Close()
		c := connect(t, s, nil)
		defer c.close()
		if got := c.event("settings"); got != "settings 1" {
			t.Errorf("first limit: got %q, want 1", got)
		}
		c.open(false)
		c.open(false)
		if got, want := c.event("goaway"), "goaway 7 1 "+overLimitText; got != want {
			t.Errorf("second stream: got %q, want %q", got, want)
		}
		<-c.ended
		if got := clientFaultsOf(s); got != "over_limit:1" {
			t.Errorf("client faults: got %s, want over_limit:1", got)
		}
	})
}

// TestStreamsBeforeSettings opens streams without waiting for the first SETTINGS,
// as node-apn does: as many as clients assume are served, and counted. Strict mode
// grants one.
func TestStreamsBeforeSettings(t *testing.T) {
	fixture()
	for _, tt := range []struct {
		strict bool
		open   int // before the push
		ends   bool
	}{
		{false, 1, false},
		{false, assumedLimit - 1, false},
		{false, assumedLimit, true},
		{true, 1, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, func(c *Config) { c.Strict = tt.strict })
			defer s.Close()
			nc, err := s.Dial(t.Context(), "tcp", "")
			if err != nil {
				t.Fatal(err)
			}
			c, err := greet(t, nc, nil)
			if err != nil {
				t.Fatal(err)
			}
			c.mute = true
			go c.read() // ends with the connection; close waits for it
			defer c.close()
			for range tt.open {
				c.open(false)
			}
			push := c.send(badgeOf3)
			if tt.ends {
				if got := c.event("goaway"); !strings.HasSuffix(got, overLimitText) {
					t.Errorf("strict %v, push beside %d: got %q, want GOAWAY", tt.strict, tt.open, got)
				}
			} else if got := c.wait(push).status; got != "200" {
				t.Errorf("strict %v, push beside %d: got %q, want 200", tt.strict, tt.open, got)
			}
			faults := tt.open
			if tt.strict {
				faults = 1
			}
			if got, want := clientFaultsOf(s), fmt.Sprintf("over_limit:%d", faults); got != want {
				t.Errorf("strict %v, push beside %d: client faults %q, want %s", tt.strict, tt.open, got, want)
			}
		})
	}
}

func TestFirstStreamReset(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, func(c *Config) { c.ResetOverLimit = true })
		defer s.Close()
		c := connect(t, s, nil)
		defer c.close()
		c.event("settings 1")
		first, second := c.open(false), c.send(badgeOf3)
		if a := c.wait(second); a.reset != http2.ErrCodeRefusedStream {
			t.Errorf("second stream: got %v, want REFUSED_STREAM", a.reset)
		}
		c.write(c.framer.WriteData(first, true, []byte(badgeOf3)))
		if a := c.wait(first); a.status != "200" {
			t.Errorf("first stream: got %s, want 200", a.status)
		}
	})
}

// TestLimitNotLifted: an invalid token does not lift the limit, a refused push
// with a valid one does (rule C4).
func TestLimitNotLifted(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, func(c *Config) { c.StreamLimit = 50 })
		defer s.Close()
		c := connect(t, s, nil)
		defer c.close()
		good := c.token
		c.token = "a.b.c"
		c.push(badgeOf3)
		synctest.Wait()
		if got := len(c.all()); got != 1 {
			t.Errorf("after an invalid token: got events %q, want the first SETTINGS only", c.all())
		}
		c.token = good
		if got := c.push(badgeOf3, ":path", "/3/device/"+phone(77).Hex()); got != "400 BadDeviceToken" {
			t.Errorf("unknown device: got %s, want 400", got)
		}
		if got := c.event("settings 50"); got == "" {
			t.Error("after a valid token: the limit was not lifted")
		}
	})
}

func TestLoweredLimit(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
		if got := s.Trigger(FaultLimitOne); got != 1 {
			t.Errorf("struck: got %d connections, want 1", got)
		}
		synctest.Wait() // lowered and acknowledged
		first, second := c.open(false), c.send(badgeOf3)
		if a := c.wait(second); a.reset != http2.ErrCodeRefusedStream {
			t.Errorf("beyond the lowered limit: got %v, want REFUSED_STREAM (rule C13)", a.reset)
		}
		c.write(c.framer.WriteData(first, true, []byte(badgeOf3)))
		if a := c.wait(first); a.status != "200" {
			t.Errorf("stream within: got %s, want 200", a.status)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := c.last(); got != "settings 1000" {
			t.Errorf("later: got %q, want the limit restored", got)
		}
	})
}

// TestErrorScore slows a connection down, then ends it (rule C5).
func TestErrorScore(t *testing.T) {
	bubble(t, func(c *Config) { c.ErrorSlowdown, c.ErrorDisconnect = 8, 16 }, func(t *testing.T, s *Simulator, c *client) {
		unknown := []string{":path", "/3/device/" + phone(77).Hex()}
		c.push(badgeOf3, unknown...)
		c.push(badgeOf3, unknown...)
		synctest.Wait()
		if got := c.last(); got != "settings 1" {
			t.Fatalf("after two: got %q, want the limit lowered", got)
		}
		for range 4 {
			c.push(badgeOf3)
		}
		synctest.Wait()
		if got := c.last(); got != "settings 1000" {
			t.Errorf("after successes: got %q, want the limit restored", got)
		}
		for range 3 {
			c.push(badgeOf3, unknown...)
		}
		if got := c.event("goaway"); !strings.Contains(got, "BadDeviceToken") {
			t.Errorf("after more: got %q, want GOAWAY with the reason", got)
		}
		<-c.ended
	})
}

func TestIdle(t *testing.T) {
	bubble(t, func(c *Config) { c.IdleTimeout = time.Hour }, func(t *testing.T, s *Simulator, c *client) {
		time.Sleep(time.Hour - time.Millisecond)
		if got := len(s.openConns()); got != 1 {
			t.Errorf("just before: got %d connections, want 1", got)
		}
		time.Sleep(time.Millisecond)
		if got := c.event("goaway"); !strings.HasSuffix(got, `{"reason":"IdleTimeout"}`) {
			t.Errorf("at an hour: got %q, want IdleTimeout", got)
		}
		<-c.ended
	})
}

// TestDrain answers what is in flight and ends (rule C7).
func TestDrain(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
		if err := s.SetFaults(Faults{Latency: Latency{Min: time.Second}}); err != nil {
			t.Fatal(err)
		}
		id := c.send(badgeOf3)
		synctest.Wait()
		if err := s.Drain(t.Context()); err != nil {
			t.Errorf("drain: got %v, want none", err)
		}
		if a := c.wait(id); a.status != "200" {
			t.Errorf("in flight: got %s, want 200", a.status)
		}
		if got, want := c.event("goaway"), `goaway 0 3 {"reason":"Shutdown"}`; got != want {
			t.Errorf("goodbye: got %q, want %q", got, want)
		}
		<-c.ended
	})
}

func TestChurn(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, func(c *Config) { c.ConnectsPerMinute = 2 })
		defer s.Close()
		for i, want := range []bool{true, true, false} {
			c, err := tryConnect(t, s, nil)
			if (err == nil) != want {
				t.Errorf("connect %d: got error %v, want accepted %v", i+1, err, want)
			}
			if err == nil {
				c.close()
			}
		}
		time.Sleep(time.Minute)
		c := connect(t, s, nil)
		c.close()
		if got := clientFaultsOf(s); got != "churn:1" {
			t.Errorf("client faults: got %s, want churn:1", got)
		}
	})
}

// TestFrameRules breaks RFC 9113 one way at a time (rules C9 to C11).
func TestFrameRules(t *testing.T) {
	tests := []struct {
		name string
		do   func(c *client)
		want string
	}{
		{"even stream", func(c *client) { c.next = 4; c.open(true) }, "goaway 1 "},
		{"smaller stream", func(c *client) { c.next = 9; c.send(badgeOf3); c.next = 1; c.open(true) }, "goaway 5 "},
		{"data on idle stream", func(c *client) { c.write(c.framer.WriteData(99, true, nil)) }, "goaway 1 "},
		{"data on closed stream", func(c *client) { c.write(c.framer.WriteData(1, true, nil)) }, "goaway 5 "},
		{"large frame", func(c *client) {
			c.write(c.framer.WriteData(c.open(false), true, make([]byte, maxFrameSize+1)))
		}, "goaway 6 "},
		{"compression", func(c *client) {
			c.write(c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.next, BlockFragment: []byte{0xff, 0xff, 0xff}, EndHeaders: true}))
		}, "goaway 9 "},
		{"window of 0", func(c *client) { c.write(c.framer.WriteWindowUpdate(0, 0)) }, "goaway 1 "},
		{"window too large", func(c *client) { c.write(c.framer.WriteWindowUpdate(0, 1<<31-1)) }, "goaway 3 "},
		{"bad setting", func(c *client) {
			c.write(c.framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 2}))
		}, "goaway 1 "},
		{"needless acknowledgement", func(c *client) { c.write(c.framer.WriteSettingsAck()) }, "goaway 1 "},
		{"push promise", func(c *client) {
			c.write(c.framer.WriteRawFrame(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, []byte{0, 0, 0, 2}))
		}, "goaway 1 "},
		{"continuation alone", func(c *client) { c.write(c.framer.WriteContinuation(99, true, nil)) }, "goaway 1 "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
				synctest.Wait()
				tt.do(c)
				if got := c.event("goaway"); !strings.HasPrefix(got, tt.want) {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				<-c.ended
				if got := s.ClientFaults()[ClientProtocolError]; got != 1 {
					t.Errorf("counted: got %d, want 1", got)
				}
			})
		})
	}
}

// TestMalformedRequests ends only the stream (RFC 9113, section 8.1.1).
func TestMalformedRequests(t *testing.T) {
	for _, changes := range [][]string{
		{":method", "-"}, {":path", "-"}, {":scheme", "-"}, {"connection", "close"}, {"Upper", "case"}, {"+:path", "/late"},
	} {
		bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
			if a := c.wait(c.send(badgeOf3, changes...)); a.reset != http2.ErrCodeProtocol {
				t.Errorf("%q: got status %q, reset %v; want PROTOCOL_ERROR", changes, a.status, a.reset)
			}
			if got := c.push(badgeOf3); got != "200" {
				t.Errorf("the next push: got %s, want 200", got)
			}
		})
	}
}

func TestPingAndPriority(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
		c.write(c.framer.WritePing(false, [8]byte{1}))
		if got := c.event("ping"); got != "ping true" {
			t.Errorf("ping: got %q, want an answer (rule C9)", got)
		}
		c.write(c.framer.WritePriority(1, http2.PriorityParam{Weight: 9}))
		synctest.Wait()
		if got := clientFaultsOf(s); got != "priority_frame:1" {
			t.Errorf("client faults: got %s, want priority_frame:1 (rule C10)", got)
		}
	})
}

// TestCompressionAudit counts what fills the compression table (rule C12).
func TestCompressionAudit(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
		for n := range 60 {
			s.RegisterDevice(phone(n), topic, Production, Meta{})
			c.block.Reset()
			for _, f := range c.fields(":path", "/3/device/"+phone(n).Hex(), "content-type", "application/json") {
				_ = c.enc.WriteField(f) // indexes everything
			}
			id := c.next
			c.next += 2
			c.write(c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true}))
			c.write(c.framer.WriteData(id, true, []byte(badgeOf3)))
			if a := c.wait(id); a.status != "200" {
				t.Fatalf("push: got %s, want 200", a.status)
			}
		}
		got := s.ClientFaults()
		if got[ClientIndexedPath] != 60 || got[ClientEvictions] == 0 || got[ClientIgnoredHeaders] != 60 {
			t.Errorf("client faults: got %s, want 60 paths indexed, evictions, and 60 ignored headers", clientFaultsOf(s))
		}
	})
}

// TestWindows lets the simulator send little, and itself not more than granted.
func TestWindows(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Simulator, c *client) {
		c.write(c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 4}))
		id := c.send(badgeOf3, "apns-id", "7")
		synctest.Wait()
		if a := c.peek(id); a.body != `{"re` || a.done {
			t.Errorf("window of 4: got body %q, done %v", a.body, a.done)
		}
		c.write(c.framer.WriteWindowUpdate(id, 100))
		if a := c.wait(id); a.body != `{"reason":"BadMessageId"}` {
			t.Errorf("window opened: got %q", a.body)
		}
		for range 20 {
			c.push(pad(4000))
			time.Sleep(time.Second)
		}
		if got := c.event("window"); got == "" {
			t.Error("80 KB sent: got no WINDOW_UPDATE")
		}
	})
}

func TestClose(t *testing.T) {
	fixture()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, nil)
		c := trusted(t, s)
		s.Close()
		s.Close()
		<-c.ended
		if _, err := s.Dial(context.Background(), "", ""); !errors.Is(err, ErrClosed) {
			t.Errorf("dial after close: got %v, want ErrClosed", err)
		}
	})
}

// TestServerErrorsOfAConnection has a connection of ten seconds refuse with a
// 5xx: it remembers those of the last second.
func TestServerErrorsOfAConnection(t *testing.T) {
	c, now := &conn{}, time.Now()
	for range 10_000 {
		now = now.Add(time.Millisecond)
		c.noteServerError(nil, now)
	}
	if got, want := len(c.serverErrors), int(lostWithReset/time.Millisecond); got != want {
		t.Errorf("%d are remembered, want %d", got, want)
	}
}
