package apns_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"badgerelay/apns"
)

// TestIdleEndIsNoFailure has the peer, or a proxy, end a connection that has no
// work, before any push and after one: nothing counts as failed, nobody connects
// while there is no work, and the next push goes out at once.
func TestIdleEndIsNoFailure(t *testing.T) {
	testKeys()
	ends := map[string]func(c *peerConn){
		"GOAWAY": func(c *peerConn) {
			c.mu.Lock()
			defer c.mu.Unlock()
			_ = c.WriteGoAway(0, http2.ErrCodeNo, nil) // the end shows when reading
		},
		"GOAWAY and close": func(c *peerConn) {
			c.mu.Lock()
			_ = c.WriteGoAway(0, http2.ErrCodeNo, []byte("idle"))
			c.mu.Unlock()
			_ = c.nc.Close()
		},
		"close": func(c *peerConn) { _ = c.nc.Close() },
	}
	for name, end := range ends {
		for _, first := range []int{0, 1} { // pushes before
			t.Run(fmt.Sprintf("%s after %d pushes", name, first), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					p := newPeer(t, func(c *peerConn) {
						c.settle(streams(10))
						for r := c.requestWithin(time.Minute); r != nil; r = c.requestWithin(time.Minute) {
							c.ok(r)
						}
						_ = c.nc.SetReadDeadline(time.Time{})
						end(c)
						c.request() // reads until the client has gone
					})
					f := startPool(t, apns.Config{Dial: p.Dial})
					f.put(0, first)
					for round := range 5 {
						time.Sleep(10 * time.Minute)
						synctest.Wait()
						if n := p.connections(); n != round+1 {
							t.Fatalf("%d connections before push %d, want %d: nobody connects without work", n, round, round+1)
						}
						if s := f.pool.Stats(); s.State == apns.StateOutage || s.ConnectsFailed > 0 || s.LastError != nil {
							t.Errorf("before push %d: %+v, want that nothing has failed", round, s)
						}
						f.put(100+round, 1)
						synctest.Wait() // no time goes by
						if got, want := f.accepted(), first+round+1; got != want {
							t.Fatalf("%d accepted, want %d: the push after the quiet goes out at once", got, want)
						}
					}
				})
			})
		}
	}
}

// TestSentAwayWithWorkIsAFailure has a peer send everybody away who brings work:
// it is asked less and less.
func TestSentAwayWithWorkIsAFailure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, func(c *peerConn) {
			c.settle(streams(10))
			c.mu.Lock()
			_ = c.WriteGoAway(0, http2.ErrCodeNo, nil) // the end shows when reading
			c.mu.Unlock()
			c.request()
		})
		f := startPool(t, apns.Config{Dial: p.Dial})
		f.put(0, 1)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := p.connections(); n > 40 {
			t.Errorf("%d connections in ten minutes, want growing pauses", n)
		}
	})
}
