package apns

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
)

// errTooLate ends a connection that had pushes to write whose deadline has passed.
var errTooLate = errors.New("pushes could not be written in time")

// guard is the socket below TLS, which takes nothing after the deadline that its
// writer has set. It looks each time before the system is given bytes: the process
// may have been stopped meanwhile, and while a write waited for room.
type guard struct {
	net.Conn
	raw syscall.RawConn // nil: it has no descriptor of its own
	due atomic.Pointer[Deadline]
}

func newGuard(nc net.Conn) *guard {
	g := &guard{Conn: nc}
	if conn, ok := nc.(syscall.Conn); ok {
		g.raw, _ = conn.SyscallConn() // nil without one
	}
	return g
}

// guardOf returns the guard below a connection's TLS; nil: it has none.
func guardOf(nc net.Conn) *guard {
	if secure, ok := nc.(interface{ NetConn() net.Conn }); ok {
		g, _ := secure.NetConn().(*guard)
		return g
	}
	return nil
}

// Write implements net.Conn.
func (g *guard) Write(p []byte) (int, error) {
	due := g.due.Load()
	switch {
	case due == nil:
		return g.Conn.Write(p)
	case due.Passed():
		return 0, errTooLate
	case g.raw == nil || !canWriteRaw:
		return g.Conn.Write(p)
	}
	return g.writeRaw(p, due)
}

// writeRaw writes as the connection does, and looks at the deadline before each
// attempt.
func (g *guard) writeRaw(p []byte, due *Deadline) (n int, err error) {
	waited := g.raw.Write(func(fd uintptr) (done bool) {
		for n < len(p) {
			if due.Passed() {
				err = errTooLate
				return true
			}
			var m int
			if m, err = writeRaw(fd, p[n:]); err != nil {
				return !errors.Is(err, errWouldBlock)
			}
			n += m
		}
		return true
	})
	if waited != nil {
		err = waited
	}
	return n, err
}

// SetLinger is net.TCPConn's, where the connection is one.
func (g *guard) SetLinger(sec int) error {
	if tcp, ok := g.Conn.(interface{ SetLinger(sec int) error }); ok {
		return tcp.SetLinger(sec)
	}
	return nil
}
