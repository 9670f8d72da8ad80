package simulation

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"time"
)

// How long the system tries to deliver what was written before it gives the
// connection up and forgets it (tcp(7), TCP_USER_TIMEOUT): gRPC asks for 10 to
// 20 s; package apns for 30 s.
const (
	forgetAfter     = 20 * time.Second
	forgetAfterAPNs = 30 * time.Second
)

// conn is one end of a connection. All of it is guarded by network.mu; signals
// are channels of one slot.
type conn struct {
	network       *network
	host          string
	peer          *conn
	local, remote net.Addr
	out           direction

	unread    []byte
	ended     bool  // the peer has closed its side
	broken    error // reset or given up: both calls fail
	closed    bool
	gone      bool // its machine has vanished
	linger    bool // SetLinger(0): closing throws away what was not delivered
	readable  chan struct{}
	writable  chan struct{}
	readUntil time.Time
	writeBy   time.Time
	deadlines chan struct{} // closed and made anew when a deadline is set
}

// direction is what an end has sent and has not arrived.
type direction struct {
	network  *network
	path     path
	chance   *rand.Rand
	from, to *conn
	chunks   []chunk
	size     int // bytes of chunks
	last     time.Time
	pumping  bool
}

// chunk is one write, or the end of what comes.
type chunk struct {
	data      []byte
	fin       bool
	sent, due time.Time
}

func newConn(n *network, host string) *conn {
	return &conn{network: n, host: host, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1), deadlines: make(chan struct{})}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	for {
		c.network.mu.Lock()
		switch {
		case c.closed:
			c.network.mu.Unlock()
			return 0, net.ErrClosed
		case len(c.unread) > 0:
			n := copy(p, c.unread)
			c.unread = c.unread[n:]
			more := len(c.unread) > 0
			c.network.mu.Unlock()
			if more {
				signal(c.readable)
			}
			signal(c.peer.writable)
			return n, nil
		case c.broken != nil:
			err := c.broken
			c.network.mu.Unlock()
			return 0, err
		case c.ended:
			c.network.mu.Unlock()
			return 0, io.EOF
		}
		until, changed := c.readUntil, c.deadlines
		c.network.mu.Unlock()
		if err := wait(c.readable, until, changed); err != nil {
			return 0, err
		}
	}
}

// wait waits for a signal until a deadline, or until that changes.
func wait(ready chan struct{}, until time.Time, changed chan struct{}) error {
	var timer <-chan time.Time
	if !until.IsZero() {
		left := time.Until(until)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		t := time.NewTimer(left)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ready:
		return nil
	case <-timer:
		return os.ErrDeadlineExceeded
	case <-changed:
		return nil
	}
}

// Write implements net.Conn. It waits while the other side is a socket's buffer
// behind.
func (c *conn) Write(p []byte) (int, error) {
	for written := 0; ; {
		c.network.mu.Lock()
		switch {
		case c.closed:
			c.network.mu.Unlock()
			return written, net.ErrClosed
		case c.broken != nil:
			err := c.broken
			c.network.mu.Unlock()
			return written, err
		}
		if room := socketBuffer - c.out.size - len(c.peer.unread); room > 0 {
			part := p[written:min(len(p), written+room)]
			written += len(part)
			c.out.send(chunk{data: append([]byte(nil), part...)})
		}
		until, changed := c.writeBy, c.deadlines
		c.network.mu.Unlock()
		if written == len(p) {
			return written, nil
		}
		if err := wait(c.writable, until, changed); err != nil {
			return written, err
		}
	}
}

// send puts a chunk on its way; mu must be held.
func (d *direction) send(c chunk) {
	now := time.Now()
	c.sent = now
	c.due = now.Add(d.network.delay(d.path, d.chance))
	if c.due.Before(d.last) {
		c.due = d.last
	}
	d.last = c.due
	d.chunks = append(d.chunks, c)
	d.size += len(c.data)
	if !d.pumping {
		d.pumpAt(c.due)
	}
}

func (d *direction) pumpAt(t time.Time) {
	d.pumping = true
	d.network.events.at(t, d.pump)
}

// pumpLater tries again, soon after the path has opened.
func (d *direction) pumpLater() {
	if len(d.chunks) > 0 {
		d.pumpAt(time.Now().Add(d.network.delay(d.path, d.chance)))
	}
}

// pump delivers the first chunk if it is due.
func (d *direction) pump() {
	n := d.network
	n.mu.Lock()
	defer n.mu.Unlock()
	d.pumping = false
	if len(d.chunks) == 0 {
		return
	}
	now, first := time.Now(), d.chunks[0]
	if first.due.After(now) {
		d.pumpAt(first.due)
		return
	}
	if n.path(d.path).blocked || n.host(d.path.to).gone || d.to.gone || d.from.gone {
		// Opening the path pumps as well; here the system gives up.
		giveUp := first.sent.Add(d.timeout())
		if now.Before(giveUp) {
			d.pumpAt(giveUp)
			return
		}
		d.forget()
		d.from.breakLocked(errTimedOut)
		return
	}
	d.chunks = d.chunks[1:]
	d.size -= len(first.data)
	d.arrive(first)
	if len(d.chunks) > 0 {
		d.pumpAt(d.chunks[0].due)
	}
}

func (d *direction) timeout() time.Duration {
	if d.path.to == apnsHost {
		return forgetAfterAPNs
	}
	return forgetAfter
}

// arrive hands a chunk to the other end, or learns that it is closed.
func (d *direction) arrive(c chunk) {
	to := d.to
	switch {
	case to.broken != nil:
	case to.closed:
		if !c.fin {
			d.forget()
			d.network.events.after(d.network.delay(to.out.path, to.out.chance), func() {
				d.network.mu.Lock()
				defer d.network.mu.Unlock()
				if !d.network.path(to.out.path).blocked {
					d.from.breakLocked(errReset)
				}
			})
		}
	case c.fin:
		to.ended = true
		signal(to.readable)
	default:
		to.unread = append(to.unread, c.data...)
		signal(to.readable)
	}
	if d.from.closed && len(d.chunks) == 0 {
		delete(d.network.conns, d.from)
	}
}

// forget throws away what has not arrived.
func (d *direction) forget() { d.chunks, d.size = nil, 0 }

// breakLocked makes every call of the end fail.
func (c *conn) breakLocked(err error) {
	if c.broken == nil {
		c.broken = err
	}
	c.out.forget()
	signal(c.readable)
	signal(c.writable)
}

// resetLocked is what a middlebox that resets the connection does to an end.
func (c *conn) resetLocked() {
	c.breakLocked(errReset)
	delete(c.network.conns, c)
}

// vanishLocked stops the end with its machine.
func (c *conn) vanishLocked() {
	c.gone = true
	c.out.forget()
	c.breakLocked(net.ErrClosed)
	delete(c.network.conns, c)
}

// closeLocked closes the end; what was written goes on its way.
func (c *conn) closeLocked(error) {
	if c.closed {
		return
	}
	c.closed = true
	signal(c.readable)
	signal(c.writable)
	signal(c.peer.writable)
	if c.broken != nil {
		delete(c.network.conns, c)
		return
	}
	if c.linger || len(c.unread) > 0 { // a reset, which gets there or does not
		c.out.forget()
		c.network.events.after(c.network.delay(c.out.path, c.out.chance), func() {
			c.network.mu.Lock()
			defer c.network.mu.Unlock()
			if !c.network.path(c.out.path).blocked && !c.peer.gone {
				c.peer.breakLocked(errReset)
			}
			delete(c.network.conns, c)
		})
		return
	}
	c.out.send(chunk{fin: true})
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closeLocked(nil)
	return nil
}

// SetLinger makes a later Close throw away what has not arrived, for sec 0, as
// with a TCP connection.
func (c *conn) SetLinger(sec int) error {
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	c.linger = sec == 0
	return nil
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	c.setDeadlines(&t, &t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.setDeadlines(&t, nil)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.setDeadlines(nil, &t)
	return nil
}

func (c *conn) setDeadlines(read, write *time.Time) {
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	if read != nil {
		c.readUntil = *read
	}
	if write != nil {
		c.writeBy = *write
	}
	close(c.deadlines)
	c.deadlines = make(chan struct{})
}
