package apns_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"badgerelay/apns"
)

// bubble runs a test in fake time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	testKeys()
	synctest.Test(t, f)
}

// onlyFirst scripts the first connection; later ones accept everything.
func onlyFirst(script func(*peerConn)) func(*peerConn) {
	return func(c *peerConn) {
		if c.n == 1 {
			script(c)
			return
		}
		c.settle(streams(1000))
		c.serveOK()
	}
}

func TestWaitsForSettingsThenOneStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var first, early, second *peerRequest
		p := newPeer(t, func(c *peerConn) {
			early = c.requestWithin(time.Second)
			c.settle(streams(100))
			if first = c.request(); first == nil {
				return
			}
			second = c.requestWithin(2 * time.Second)
			c.ok(first)
			c.serveOK()
		})
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
		f.put(0, 50)
		time.Sleep(time.Second - time.Millisecond)
		synctest.Wait()
		if got := f.pool.Stats(); got.StreamsGranted != 0 || got.InFlight != 0 {
			t.Errorf("before the first SETTINGS: %+v", got)
		}
		time.Sleep(2*time.Second - time.Millisecond)
		synctest.Wait()
		if got := f.pool.Stats(); got.StreamsGranted != 1 || got.InFlight != 1 {
			t.Errorf("before the first answer: %+v", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if early != nil || first == nil || second != nil {
			t.Errorf("before SETTINGS %v, first %v, before its answer %v", early, first, second)
		}
		if got := f.accepted(); got != 50 {
			t.Errorf("%d of 50 accepted", got)
		}
		if got := f.pool.Stats(); got.StreamsGranted != 100 || got.InFlight != 0 || got.State != apns.StateUp {
			t.Errorf("after all answers: %+v", got)
		}
	})
}

func TestRequestOnTheWire(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var got []*peerRequest
		var lens []int
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(1))
			for r := c.request(); r != nil; r = c.request() {
				got, lens = append(got, r), append(lens, c.blockLen)
				c.ok(r)
			}
		})
		f := startPool(t, apns.Config{Dial: p.Dial, Lifetime: 24 * time.Hour})
		f.put(0, 6)
		synctest.Wait()
		if len(got) != 6 {
			t.Fatalf("%d pushes arrived", len(got))
		}
		// The bubble begins on the hour; a day later, rounded up.
		expires := fmt.Sprint(time.Now().Truncate(time.Hour).Add(25 * time.Hour).Unix())
		for i, r := range got {
			priority := "10"
			if i%2 == 1 {
				priority = "5"
			}
			for name, want := range map[string]string{
				":method": "POST", ":scheme": "https", ":authority": "push.example",
				":path":           "/3/device/" + device(i).Hex(),
				"apns-topic":      testTopic,
				"apns-push-type":  "alert",
				"apns-priority":   priority,
				"apns-expiration": expires,
			} {
				if r.get(name) != want {
					t.Errorf("push %d: %s is %q, want %q", i, name, r.get(name), want)
				}
			}
			if !strings.HasPrefix(r.get("authorization"), "bearer ey") || len(r.fields) != 9 {
				t.Errorf("push %d: header fields %v", i, r.fields)
			}
			if want := fmt.Sprintf(`{"aps":{"badge":%d}}`, i); string(r.body) != want {
				t.Errorf("push %d: body %q, want %q", i, r.body, want)
			}
		}
		// 2 indexed, :path literal, 6 indexed: from the third push on.
		if want := 2 + 2 + 74 + 6; lens[2] > want || lens[5] > want {
			t.Errorf("header blocks of %v bytes, want at most %d from the third on", lens, want)
		}
	})
}

func TestStreamLimitMoves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex // guards waiting
		var waiting []*peerRequest
		var conn *peerConn
		p := newPeer(t, func(c *peerConn) {
			conn = c
			c.settle(streams(20))
			c.ok(c.request())
			for r := c.request(); r != nil; r = c.request() {
				mu.Lock()
				waiting = append(waiting, r)
				mu.Unlock()
			}
		})
		answer := func() {
			mu.Lock()
			batch := waiting
			waiting = nil
			mu.Unlock()
			for _, r := range batch {
				conn.ok(r)
			}
			synctest.Wait()
		}
		want := func(n int, when string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if len(waiting) != n {
				t.Errorf("%s: %d open, want %d", when, len(waiting), n)
			}
		}
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
		f.put(0, 100)
		synctest.Wait()
		want(20, "limit 20")
		conn.settle(streams(1))
		synctest.Wait()
		want(20, "limit lowered to 1 with 20 open")
		answer()
		want(1, "limit 1")
		conn.settle(streams(0))
		synctest.Wait()
		answer()
		want(0, "limit 0")
		time.Sleep(time.Minute)
		synctest.Wait()
		want(0, "limit 0 for a minute")
		conn.settle(streams(7))
		synctest.Wait()
		want(7, "limit 7")
		for f.accepted() < 100 && !t.Failed() {
			answer()
			want(min(7, 100-f.accepted()), "limit 7 again")
		}
		if p.connections() != 1 {
			t.Errorf("%d connections", p.connections())
		}
	})
}

func TestGoAway(t *testing.T) {
	for _, test := range []struct {
		name  string
		debug string
		twice bool
	}{
		{"json", `{"reason":"Shutdown"}`, false},
		{"text", "Maximum active streams violated for this endpoint.", false},
		{"truncated", `{"reas`, false},
		{"none", "", false},
		{"twice", "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPeer(t, onlyFirst(func(c *peerConn) {
					c.settle(streams(100))
					c.ok(c.request())
					var in []*peerRequest
					for range 10 {
						in = append(in, c.request())
					}
					if test.twice {
						_ = c.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil)
						in = append(in, nil)[:10]
					}
					_ = c.WriteGoAway(in[4].id, http2.ErrCodeNo, []byte(test.debug))
					for _, r := range in[:4] {
						c.ok(r) // the fifth never
					}
					c.drain()
				}))
				f := startPool(t, apns.Config{Dial: p.Dial, AnswerTimeout: 2 * time.Second, DrainTimeout: time.Second})
				f.put(0, 11)
				synctest.Wait()
				got := reasons(f.reset())
				if got[""] != 5 || got[apns.ReasonGoneAway] != 5 {
					t.Fatalf("at once: %v", got)
				}
				f.put(100, 3)
				time.Sleep(1999 * time.Millisecond)
				synctest.Wait()
				if got := reasons(f.reset()); got[""] != 3 || len(got) != 1 {
					t.Errorf("others on a new connection: %v", got)
				}
				time.Sleep(time.Millisecond)
				synctest.Wait()
				r := f.reset()
				if len(r) != 1 || r[0].Err.Verdict() != apns.VerdictResend {
					t.Errorf("the straggler: %v", r)
				}
			})
		})
	}
}

func TestLostConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, onlyFirst(func(c *peerConn) {
			c.settle(streams(100))
			c.ok(c.request())
			for range 10 {
				c.request()
			}
		}))
		f := startPool(t, apns.Config{Dial: p.Dial})
		f.resend = true
		f.put(0, 11)
		time.Sleep(time.Second)
		synctest.Wait()
		got := reasons(f.reset())
		if got[""] != 11 || got[apns.ReasonConnectionLost] != 10 {
			t.Errorf("results %v", got)
		}
		if p.connections() != 2 {
			t.Errorf("%d connections, want 2", p.connections())
		}
	})
}

func TestRefusedStreamRests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var refused atomic.Int64
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(10))
			c.ok(c.request())
			for r := c.request(); r != nil; r = c.request() {
				if refused.Load() < 20 {
					refused.Add(1)
					_ = c.WriteRSTStream(r.id, http2.ErrCodeRefusedStream)
					continue
				}
				c.ok(r)
			}
		})
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
		f.resend = true
		f.put(0, 11)
		synctest.Wait()
		if n := refused.Load(); n > 10 {
			t.Errorf("%d refusals at once", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := reasons(f.reset()); got[""] != 11 || got[apns.ReasonStreamRefused] != 20 {
			t.Errorf("results %v", got)
		}
	})
}

func TestLateAnswersAndPing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var conn *peerConn
		p := newPeer(t, onlyFirst(func(c *peerConn) {
			conn = c
			c.settle(streams(10))
			c.ok(c.request())
			c.drain()
		}))
		f := startPool(t, apns.Config{Dial: p.Dial, AnswerTimeout: 4 * time.Second, PingTimeout: 2 * time.Second, MaxConns: 1})
		f.put(0, 2)
		time.Sleep(3999 * time.Millisecond)
		synctest.Wait()
		if conn.pinged() != 0 {
			t.Error("PING before an answer was overdue")
		}
		time.Sleep(1001 * time.Millisecond) // the writer looks once a second
		synctest.Wait()
		if conn.pinged() != 1 {
			t.Errorf("%d PINGs when an answer was overdue, want 1", conn.pinged())
		}
		f.reset()
		time.Sleep(8 * time.Second) // PINGs are answered: the push is given up after 12 s
		synctest.Wait()
		if got := reasons(f.reset()); got[apns.ReasonTimeout] != 1 {
			t.Errorf("results %v, want one timeout", got)
		}
		if p.connections() != 2 {
			t.Errorf("%d connections: one that lost a stream is replaced", p.connections())
		}
	})
}

func TestDeadPeer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, onlyFirst(func(c *peerConn) {
			c.settle(streams(10))
			c.ok(c.request())
			c.autoPong = false
			c.drain()
		}))
		f := startPool(t, apns.Config{Dial: p.Dial, AnswerTimeout: 4 * time.Second, PingTimeout: 2 * time.Second, MaxConns: 1})
		f.resend = true
		f.put(0, 3)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := f.accepted(); got != 1 {
			t.Errorf("%d accepted early", got)
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if got := f.accepted(); got != 3 {
			t.Errorf("%d of 3 accepted after the dead connection was left", got)
		}
	})
}

func TestStalledSocket(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		p := newPeer(t, onlyFirst(func(c *peerConn) {
			c.settle(streams(1000))
			c.ok(c.request())
			<-release // reads no more
		}))
		f := startPool(t, apns.Config{Dial: p.Dial, AnswerTimeout: 4 * time.Second, PingTimeout: 2 * time.Second, MaxConns: 1})
		f.resend = true
		f.put(0, 300)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := f.accepted(); got != 300 {
			t.Errorf("%d of 300 accepted", got)
		}
		close(release)
	})
}

func TestIdlePing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var conn *peerConn
		p := newPeer(t, func(c *peerConn) {
			conn = c
			c.settle(streams(10))
			c.serveOK()
		})
		f := startPool(t, apns.Config{Dial: p.Dial})
		f.put(0, 1)
		time.Sleep(time.Hour - time.Millisecond)
		synctest.Wait()
		if conn.pinged() != 0 {
			t.Errorf("%d PINGs before an hour of silence", conn.pinged())
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if conn.pinged() != 1 {
			t.Errorf("%d PINGs after an hour of silence, want 1", conn.pinged())
		}
		if p.connections() != 1 {
			t.Errorf("%d connections", p.connections())
		}
	})
}

func TestFlowControl(t *testing.T) {
	for _, test := range []struct {
		name   string
		window uint32
	}{{"no window", 0}, {"one byte", 1}, {"half a body", 10}} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPeer(t, func(c *peerConn) {
					c.settle(streams(10), http2.Setting{ID: http2.SettingInitialWindowSize, Val: test.window})
					for {
						f, err := c.ReadFrame()
						if err != nil {
							return
						}
						r := c.on(f)
						if f.Header().Type == http2.FrameHeaders {
							_ = c.WriteWindowUpdate(f.Header().StreamID, 30)
						}
						if r != nil {
							c.ok(r)
						}
					}
				})
				f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
				f.put(0, 30)
				synctest.Wait()
				if got := f.accepted(); got != 30 {
					t.Errorf("%d of 30 accepted", got)
				}
			})
		})
	}
}

func TestConnectionWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var bytes atomic.Int64
		var conn *peerConn
		p := newPeer(t, func(c *peerConn) {
			conn = c
			c.settle(streams(1000))
			for r := c.request(); r != nil; r = c.request() {
				bytes.Add(int64(len(r.body)))
				c.ok(r)
			}
		})
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
		f.put(1000, 9000) // 24 bytes each, three times the window
		synctest.Wait()
		if n := bytes.Load(); n > 65535 || n < 65535-30 {
			t.Errorf("%d bytes of DATA in a window of 65535", n)
		}
		for range 5 {
			conn.mu.Lock()
			_ = conn.WriteWindowUpdate(0, 50000)
			conn.mu.Unlock()
			synctest.Wait()
		}
		if got := f.accepted(); got != 9000 {
			t.Errorf("%d of 9000 accepted", got)
		}
	})
}

func TestHeaderTableSize(t *testing.T) {
	for _, size := range []uint32{0, 100, 300, 700, 4096, 65536} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPeer(t, func(c *peerConn) {
					c.settle(streams(10))
					n := 0
					for r := c.request(); r != nil; r = c.request() {
						if r.get("apns-topic") != testTopic || r.get("authorization") == "" || r.get("apns-priority") == "" {
							t.Errorf("push %d: fields %v", n, r.fields)
						}
						if n++; n == 20 {
							c.tableMax = max(size, 1)
							c.settle(http2.Setting{ID: http2.SettingHeaderTableSize, Val: size})
						}
						c.ok(r)
					}
				})
				f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
				f.put(0, 100)
				synctest.Wait()
				f.put(100, 100)
				synctest.Wait()
				if got := f.accepted(); got != 200 {
					t.Errorf("%d of 200 accepted", got)
				}
			})
		})
	}
}

func TestProviderTokenRenewedOnTheConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		seen := make(map[string]int) // guarded by mu
		tokens := func() int {
			mu.Lock()
			defer mu.Unlock()
			return len(seen)
		}
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(10))
			for r := c.request(); r != nil; r = c.request() {
				mu.Lock()
				seen[r.get("authorization")]++
				mu.Unlock()
				c.ok(r)
			}
		})
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
		f.put(0, 10)
		time.Sleep(50*time.Minute - time.Millisecond)
		f.put(10, 10)
		synctest.Wait()
		if tokens() != 1 {
			t.Errorf("%d tokens before 50 minutes, want 1", tokens())
		}
		time.Sleep(time.Millisecond)
		f.put(20, 10)
		synctest.Wait()
		if tokens() != 2 || f.accepted() != 30 || p.connections() != 1 {
			t.Errorf("%d tokens after 50 minutes, %d accepted, %d connections", tokens(), f.accepted(), p.connections())
		}
	})
}

func TestHeaderListLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(10), http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 200})
			if c.request() != nil {
				t.Error("a push went out beyond the peer's header list limit")
			}
		})
		f := startPool(t, apns.Config{Dial: p.Dial})
		f.put(0, 1)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if s := f.pool.Stats(); s.LastError == nil || s.State != apns.StateOutage {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestAnswersAsFrames takes answers in every shape that RFC 9113 allows.
func TestAnswersAsFrames(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(10))
			c.ok(c.request())
			split := func(r *peerRequest, end bool, block []byte) {
				_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: r.id, BlockFragment: block[:1], EndStream: end})
				_ = c.WriteContinuation(r.id, false, nil)
				_ = c.WriteContinuation(r.id, true, block[1:])
			}
			split(c.request(), true, c.headers(":status", "200"))
			r := c.request()
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: r.id, EndHeaders: true, BlockFragment: c.headers(":status", "103", "link", "x")})
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: r.id, EndHeaders: true, EndStream: true, PadLength: 40,
				Priority: http2.PriorityParam{Weight: 3}, BlockFragment: c.headers(":status", "200", "x", "y")})
			r = c.request()
			split(r, false, c.headers(":status", "410", "apns-id", "A", "retry-after", "7"))
			body := `{"reason":"Unregistered","timestamp":1700000000123}`
			_ = c.WriteDataPadded(r.id, false, []byte(body[:9]), make([]byte, 200))
			_ = c.WriteRawFrame(0xfa, 0xff, r.id, []byte("unknown"))
			_ = c.WriteData(r.id, false, nil)
			_ = c.WriteData(r.id, false, []byte(body[9:]))
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: r.id, EndHeaders: true, EndStream: true, BlockFragment: c.headers("trailer", "x")})
			_ = c.WriteRSTStream(r.id, http2.ErrCodeNo)
			c.drain()
		})
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1})
		f.put(0, 4)
		synctest.Wait()
		got := f.reset()
		if len(got) != 4 {
			t.Fatalf("%d of 4 answers", len(got))
		}
		for _, r := range got[:3] {
			if r.Err != nil {
				t.Errorf("push %v: %v", r.Tag, r.Err)
			}
		}
		e := got[3].Err
		if e == nil || e.Status != 410 || e.Reason != apns.ReasonUnregistered || !e.Unregistered() || e.ID != "A" ||
			e.RetryAfter != 7*time.Second || e.Timestamp.UnixMilli() != 1700000000123 {
			t.Errorf("the refusal: %+v", e)
		}
	})
}

func TestFloodOfPings(t *testing.T) {
	bubble(t, func(t *testing.T) {
		pongs := 0
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(10))
			c.ok(c.request())
			for i := range 1000 {
				_ = c.WritePing(false, [8]byte{byte(i)})
			}
			for {
				f, err := c.ReadFrame()
				if err != nil {
					return
				}
				if ping, ok := f.(*http2.PingFrame); ok && ping.IsAck() {
					pongs++
				} else if r := c.on(f); r != nil {
					c.ok(r)
				}
			}
		})
		f := startPool(t, apns.Config{Dial: p.Dial})
		f.put(0, 10)
		time.Sleep(time.Second)
		synctest.Wait()
		if pongs != 1000 || f.accepted() != 10 {
			t.Errorf("%d of 1000 PINGs answered, %d of 10 pushes accepted", pongs, f.accepted())
		}
	})
}

func TestConnectRateAndBackoff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, func(*peerConn) {}) // closes at once
		f := startPool(t, apns.Config{Dial: p.Dial})
		f.put(0, 1)
		time.Sleep(time.Minute)
		f.put(1, 1)
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		// 1, 2, 4, 8, 16, 32 and then 60 s, each halved at most: between 14 and 29.
		if n := p.connections(); n < 10 || n > 30 {
			t.Errorf("%d connects in ten minutes of outage", n)
		}
		if s := f.pool.Stats(); s.State != apns.StateOutage || s.LastError == nil || s.ConnectsFailed < 10 {
			t.Errorf("stats %+v", s)
		}
		if _, queued := f.took(); queued != 2 {
			t.Errorf("%d pushes wait, want 2", queued)
		}
	})
}

func TestConnectsPerSecond(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(1))
			for r := c.request(); r != nil; r = c.request() {
				time.Sleep(500 * time.Millisecond)
				c.ok(r)
			}
		})
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 5, ConnectsPerSecond: 1})
		f.put(0, 1000)
		time.Sleep(3500 * time.Millisecond)
		synctest.Wait()
		if n := p.connections(); n < 3 || n > 4 {
			t.Errorf("%d connections after 3.5 s at one a second", n)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := p.connections(); n != 5 {
			t.Errorf("%d connections, want the most, 5", n)
		}
	})
}

func TestShrinksWhenIdle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(2))
			for r := c.request(); r != nil; r = c.request() {
				time.Sleep(100 * time.Millisecond)
				c.ok(r)
			}
		})
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 4, IdleTimeout: time.Minute})
		f.put(0, 200)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := f.pool.Stats().Connections; got != 4 || f.accepted() != 200 {
			t.Fatalf("%d connections, %d accepted", got, f.accepted())
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := f.pool.Stats().Connections; got != 1 {
			t.Errorf("%d connections after idling, want 1", got)
		}
		f.put(200, 1)
		time.Sleep(time.Second)
		if f.accepted() != 201 || p.connections() != 4 {
			t.Errorf("%d accepted, %d connections ever", f.accepted(), p.connections())
		}
	})
}

func TestPushTimesOutWithoutConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, func(*peerConn) {})
		f := startPool(t, apns.Config{Dial: p.Dial})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := f.pool.Push(ctx, apns.Request{Device: device(1), Badge: 1})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Push returned %v", err)
		}
	})
}

// TestScalesWithRoundTrip offers four times what one connection can carry at
// this round trip.
func TestScalesWithRoundTrip(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(20)) // 400 a second
			var answering sync.WaitGroup
			defer answering.Wait()
			for r := c.request(); r != nil; r = c.request() {
				answering.Go(func() { // ends after the round trip
					time.Sleep(50 * time.Millisecond)
					c.ok(r)
				})
			}
		})
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 10, ConnectsPerSecond: 2})
		n := 0
		offer := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); n += 16 {
				f.put(n, 16)
				time.Sleep(10 * time.Millisecond)
			}
		}
		offer(6 * time.Second)
		before, start := f.accepted(), n
		offer(2 * time.Second)
		if got, offered := f.accepted()-before, n-start; got < offered*9/10 {
			t.Errorf("%d of %d offered pushes went through %d connections", got, offered, p.connections())
		}
		if p.connections() > 10 {
			t.Errorf("%d connections", p.connections())
		}
	})
}

// TestGoAwayThatStopsTheApp is how a certificate of the wrong environment was
// seen to be refused (ninenines/gun#308).
func TestGoAwayThatStopsTheApp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(20))
			c.request()
			_ = c.WriteGoAway(0, http2.ErrCodeNo, []byte(`{"reason":"BadCertificateEnvironment"}`))
			c.drain()
		})
		f := startPool(t, apns.Config{Dial: p.Dial})
		f.resend = true
		f.put(0, 10)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := f.pool.Stats(); s.State != apns.StateRefused || s.Refused != "BadCertificateEnvironment" {
			t.Errorf("stats %+v", s)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := p.connections(); n > 25 {
			t.Errorf("%d connections in ten minutes", n)
		}
	})
}
