package ingest

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// guardedConn gives its place back when it is closed.
type guardedConn struct {
	net.Conn
	keeper   *doorkeeper
	addr     netip.Addr
	accepted atomic.Bool   // a token was accepted on it; set under keeper.mu
	gone     chan struct{} // closed with it
	left     sync.Once

	// Set by doorkeeper.enter, under keeper.mu.
	near    *neighbour // what comes from addr; it stays as long as the connection
	entered time.Time
	waiting *list.Element // nil: HTTP/2 has begun, or it is closed
}

// Close implements net.Conn.
func (c *guardedConn) Close() error {
	c.left.Do(func() {
		close(c.gone)
		c.keeper.leave(c)
	})
	return c.Conn.Close()
}

// greet notes that HTTP/2 has begun.
func (c *guardedConn) greet() {
	c.keeper.mu.Lock()
	defer c.keeper.mu.Unlock()
	c.keeper.begun(c)
}

// accept notes that a token was accepted on the connection.
func (c *guardedConn) accept() {
	if c.accepted.Load() {
		return
	}
	c.keeper.mu.Lock()
	defer c.keeper.mu.Unlock()
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
func (c *guardedConn) spend(work int, now time.Time) bool {
	if !c.addr.IsValid() {
		return true
	}
	c.keeper.mu.Lock()
	defer c.keeper.mu.Unlock()
	return c.near.spent.take(neighbourhood, float64(work), now)
}

// slow has the connection's address get less for a while.
func (c *guardedConn) slow() {
	if c.addr.IsValid() && c.near.slow(time.Now()) {
		c.keeper.logger.Debug("address slowed: a connection from it was ended for what it asked", "address", c.addr)
	}
}

// wait waits for the connection's turn where its address is slowed, and reports
// whether it came.
func (c *guardedConn) wait() bool {
	wait := c.turn(time.Now())
	if wait < 0 {
		c.keeper.refused[refusedSlowed].Inc()
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
func (c *guardedConn) turn(now time.Time) time.Duration {
	n := c.near
	if !n.slowed(now) {
		return 0
	}
	c.keeper.mu.Lock()
	defer c.keeper.mu.Unlock()
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
