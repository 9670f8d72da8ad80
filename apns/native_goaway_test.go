package apns_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"badgerelay/apns"
)

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

// TestGoAwayThatStopsTheApp is how a certificate of the wrong environment was
// seen to be refused (ninenines/gun#308).
func TestGoAwayThatStopsTheApp(t *testing.T) {
	for _, reason := range []apns.Reason{"BadCertificateEnvironment", "TopicDisallowed"} {
		t.Run(string(reason), func(t *testing.T) { testGoAwayThatStopsTheApp(t, reason) })
	}
}

func testGoAwayThatStopsTheApp(t *testing.T, reason apns.Reason) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(20))
			c.request()
			_ = c.WriteGoAway(0, http2.ErrCodeNo, []byte(`{"reason":"`+reason+`"}`))
			c.drain()
		})
		f := startPool(t, apns.Config{Dial: p.Dial})
		f.resend = true
		f.put(0, 10)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := f.pool.Stats(); s.State != apns.StateRefused || s.Refused != reason {
			t.Errorf("stats %+v", s)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := p.connections(); n > 25 {
			t.Errorf("%d connections in ten minutes", n)
		}
	})
}

// TestGoAwayForDevices: APNs sends a connection away that had many bad device
// tokens. Other pushes go on, and whose were in flight learns why.
func TestGoAwayForDevices(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, onlyFirst(func(c *peerConn) {
			c.settle(streams(20))
			c.ok(c.request())
			c.request()
			_ = c.WriteGoAway(0, http2.ErrCodeNo, []byte(`{"reason":"BadDeviceToken"}`))
			c.drain()
		}))
		f := startPool(t, apns.Config{Dial: p.Dial})
		f.put(0, 2)
		time.Sleep(time.Second)
		synctest.Wait()
		got := f.reset()
		if len(got) != 2 || got[1].Err == nil || !got[1].Err.DevicesRefused() || got[1].Err.Verdict() != apns.VerdictResend {
			t.Fatalf("results %+v", got)
		}
		if s := f.pool.Stats(); s.State == apns.StateRefused {
			t.Errorf("stats %+v", s)
		}
	})
}
