package apns_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"badgerelay/apns"
)

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

// TestBackoffIsBetweenAttempts has a connection come up after an outage and stall: how
// long it took to be found broken is a part of the pause before the next.
func TestBackoffIsBetweenAttempts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const outage = 7 // after it a pause is as long as any
		var connections atomic.Int32
		var began [2]time.Time
		both := make(chan struct{})
		p := newPeer(t, func(c *peerConn) {
			switch n := connections.Add(1); {
			case n <= outage: // closes at once
			case n == outage+1:
				began[0] = time.Now()
				c.autoPong = false
				c.settle(streams(10))
				c.drain()
			default:
				began[1] = time.Now()
				close(both)
				c.settle(streams(10))
				c.serveOK()
			}
		})
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1, Random: func(n int64) int64 { return n - 1 }})
		f.put(0, 2)
		<-both
		if pause := began[1].Sub(began[0]); pause < 50*time.Second || pause > 61*time.Second {
			t.Errorf("%v between two attempts, want a minute", pause)
		}
	})
}

// TestProbeThatIsLostIsRepeated has APNs refuse the topic for so long that a push is tried
// once a minute, and the connection stall that the next one goes out on. It had no answer, so the one
// after it does not wait for another minute, nor for what failed before that connection.
func TestProbeThatIsLostIsRepeated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var connections atomic.Int32
		var stalls, fine atomic.Bool
		stalled := make(chan struct{})
		p := newPeer(t, func(c *peerConn) {
			if connections.Add(1) <= 7 {
				return // closes at once
			}
			c.settle(streams(10))
			for r := c.request(); r != nil; r = c.request() {
				switch {
				case fine.Load():
					c.ok(r)
				case stalls.Load():
					c.mu.Lock()
					c.autoPong = false
					c.mu.Unlock()
					fine.Store(true) // other connections are
					close(stalled)
					c.drain()
				default:
					c.refuse(r, "TopicDisallowed")
				}
			}
		})
		f := startPool(t, apns.Config{Dial: p.Dial})
		f.put(0, 100)
		time.Sleep(10 * time.Minute)
		stalls.Store(true)
		<-stalled
		time.Sleep(20 * time.Second) // 15 of them until it is known to be broken
		synctest.Wait()
		if n := f.accepted(); n == 0 {
			t.Errorf("no push accepted over %d connections, want one", connections.Load())
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

// TestConnectsSeveralAtOnce is far from APNs: two seconds until a connection
// carries its share. One comes alone; from then on their number doubles.
func TestConnectsSeveralAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, func(c *peerConn) {
			time.Sleep(time.Second)
			c.settle(streams(10))
			var answering sync.WaitGroup
			defer answering.Wait()
			for r := c.request(); r != nil; r = c.request() {
				answering.Go(func() { // ends after the round trip
					time.Sleep(time.Second)
					c.ok(r)
				})
			}
		})
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 7, ConnectsPerSecond: 10})
		f.put(0, 1000)
		most, last := 0, 0
		for at := 0; at < 80; at++ {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			n := p.connections()
			most, last = max(most, n-last), n
			if limit := 1 << (at / 20); n > limit {
				t.Fatalf("%d connections after %d ms, want at most %d", n, 100*at+100, limit)
			}
		}
		if last != 7 {
			t.Errorf("%d connections after 8 s, want 7: 1, 2, 4 and then the most", last)
		}
		if most > 2 {
			t.Errorf("%d connects within 100 ms, want about one", most)
		}
	})
}

// holding is a peer whose connections answer late at first, so that the pool
// opens as many as it may, and not at all once held.
func holding(t *testing.T, held *atomic.Bool) *peer {
	return newPeer(t, func(c *peerConn) {
		c.settle(streams(10))
		for r := c.request(); r != nil; r = c.request() {
			if !held.Load() {
				time.Sleep(50 * time.Millisecond)
				c.ok(r)
			}
		}
	})
}

// TestIdleConnIsWoken wants a connection that runs out of streams to wake one that
// waits for work, at once.
func TestIdleConnIsWoken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var held atomic.Bool
		f := startPool(t, apns.Config{Dial: holding(t, &held).Dial, MaxConns: 2, AnswerTimeout: time.Hour, DrainTimeout: time.Second})
		f.put(0, 200)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := f.pool.Stats(); s.Connections != 2 || f.accepted() != 200 {
			t.Fatalf("%d accepted, stats %+v", f.accepted(), s)
		}
		held.Store(true)
		f.put(200, 20) // one call of Wake
		synctest.Wait()
		if s := f.pool.Stats(); s.InFlight != 20 {
			t.Errorf("%d of 20 in flight on two connections of 10 streams", s.InFlight)
		}
	})
}

// TestPlaceOfALeavingConnIsTaken has a pool at its most open another
// connection as soon as one begins to leave, not when it has ended.
func TestPlaceOfALeavingConnIsTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, onlyFirst(func(c *peerConn) {
			c.settle(streams(5))
			c.ok(c.request())
			for range 5 {
				c.request()
			}
			time.Sleep(time.Second)
			_ = c.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil)
			c.drain()
		}))
		f := startPool(t, apns.Config{Dial: p.Dial, MaxConns: 1, AnswerTimeout: time.Hour, DrainTimeout: time.Second})
		f.put(0, 20)
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		if n := p.connections(); n != 1 {
			t.Fatalf("%d connections before the first leaves", n)
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if open, queued := f.took(); p.connections() != 2 || f.accepted() != 15 || open != 5 || queued != 0 {
			t.Errorf("%d connections, %d accepted, %d open, %d queued; want 2, 15, 5, 0", p.connections(), f.accepted(), open, queued)
		}
	})
}
