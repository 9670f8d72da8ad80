package apns_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"badgerelay/apns"
)

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
		if e == nil || e.Status != 410 || e.Reason != apns.ReasonUnregistered || e.ID != "A" ||
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
