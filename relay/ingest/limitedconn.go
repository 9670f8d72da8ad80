package ingest

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// limitedConn gives its place back when it is closed.
type limitedConn struct {
	net.Conn
	limiter  *connLimiter
	addr     netip.Addr
	accepted atomic.Bool   // a token was accepted on it; set under limiter.mu
	gone     chan struct{} // closed with it
	left     sync.Once
	turnOf   *handshakes // whose turn it has; whoever reads
	queued   atomic.Bool // it is in the queue of handshakes, or left it without a turn

	// Set by connLimiter.enter, under limiter.mu.
	near    *neighbour // what comes from addr; it stays as long as the connection
	entered time.Time
	waiting *list.Element // nil: HTTP/2 has begun, or it is closed
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.left.Do(func() {
		close(c.gone)
		c.limiter.leave(c)
	})
	return c.Conn.Close()
}

// begun notes that HTTP/2 has begun.
func (c *limitedConn) begun() {
	c.limiter.mu.Lock()
	defer c.limiter.mu.Unlock()
	c.limiter.begun(c)
}

// accept notes that a token was accepted on the connection.
func (c *limitedConn) accept() {
	if c.accepted.Load() {
		return
	}
	c.limiter.mu.Lock()
	defer c.limiter.mu.Unlock()
	select {
	case <-c.gone:
		return // it may have left already
	default:
	}
	if !c.accepted.Swap(true) {
		c.near.accepted++
	}
}

// spend takes what a stranger asks for out of what all strangers at its address
// may, and reports whether it was there.
func (c *limitedConn) spend(work int, now time.Time) bool {
	if !c.addr.IsValid() {
		return true
	}
	c.limiter.mu.Lock()
	defer c.limiter.mu.Unlock()
	return c.near.spent.take(neighbourhood, float64(work), now)
}

// slow has the connection's address get less for a while.
func (c *limitedConn) slow() {
	if c.addr.IsValid() && c.near.slow(time.Now()) {
		c.limiter.logger.Debug("address slowed: a connection from it was ended for what it asked", "address", c.addr)
	}
}

// wait waits for the connection's turn where its address is slowed, and reports
// whether it came.
func (c *limitedConn) wait() bool {
	wait := c.turn(time.Now())
	if wait < 0 {
		c.limiter.refused[refusedSlowed].Inc()
		return false
	}
	if wait == 0 {
		return true
	}
	turn := time.NewTimer(wait)
	defer turn.Stop()
	select {
	case <-turn.C:
		return true
	case <-c.gone:
		return false
	}
}

// turn returns how long the connection has to wait for its turn to make a
// handshake; negative: there are too many before it.
func (c *limitedConn) turn(now time.Time) time.Duration {
	n := c.near
	if !n.slowed(now) {
		return 0
	}
	c.limiter.mu.Lock()
	defer c.limiter.mu.Unlock()
	if n.turn.Before(now) {
		n.turn = now
	}
	wait := n.turn.Sub(now)
	if wait > slowWait {
		return -1
	}
	n.turn = n.turn.Add(time.Second / time.Duration(slowHandshakes+n.accepted/10))
	return wait
}
