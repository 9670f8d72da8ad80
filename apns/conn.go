package apns

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"
)

// conn is one connection to APNs: the contract that both engines keep.
//
// It takes work from its pool (Pool.take) for as many streams as it has
// free, returns every request it took in exactly one result (Pool.finish), and
// reports its state in connState.
type conn interface {
	// run serves until the connection has ended, and returns why; nil after a
	// drain. Everything taken has been returned when it returns, and every
	// goroutine it started has ended. When ctx ends, the connection is cut.
	run(ctx context.Context) error
	// wake makes a connection that waits for work look for it. It never blocks.
	wake()
	// drain makes the connection take no more and end once its answers are in, or
	// after a time. It never blocks.
	drain()
	state() *connState
}

// connState is what a pool sees of a connection. The connection writes it; any goroutine
// reads it.
type connState struct {
	// waiting is what its goroutine that takes work waits for; waitBusy: for nothing.
	waiting atomic.Int32
	// granted is how many streams may be open now; inFlight how many are.
	granted  atomic.Int64
	inFlight atomic.Int64
	// authenticated is set by the first answer that shows the credential is taken.
	authenticated atomic.Bool
	// established is set when the peer has shown that it speaks HTTP/2: by its
	// SETTINGS, or by staying.
	established atomic.Bool
	// lost counts pushes that were on their way when the connection ended.
	lost atomic.Int64
	// leaving is set when no more is taken, and wasIdle with it if the connection
	// waited for work then, and nobody had woken it.
	leaving, wasIdle atomic.Bool
	// began is set before anybody else sees the connection.
	began time.Time
	// lastPush is when something was last taken, in nanoseconds since began: the
	// system's clock may be set meanwhile.
	lastPush atomic.Int64
}

// at returns the time that is so many nanoseconds after the connection's beginning.
func (s *connState) at(sinceBegan int64) time.Time { return s.began.Add(time.Duration(sinceBegan)) }

// pushed notes that something was taken.
func (s *connState) pushed(now time.Time) { s.lastPush.Store(int64(now.Sub(s.began))) }

// idle returns how long nothing was taken.
func (s *connState) idle(now time.Time) time.Duration { return now.Sub(s.at(s.lastPush.Load())) }

// What a connection's goroutine that takes work waits for.
const (
	waitBusy    int32 = iota // it does not wait
	waitWork                 // work: streams are free
	waitStreams              // free streams
)

// wakeForWork reports whether the connection was waiting for work; if so, the caller
// has the duty to wake it, and nobody else has. A connection that begins to leave
// right then calls Pool.Wake itself, for the work it was woken for.
func (s *connState) wakeForWork() bool {
	return s.waiting.Load() == waitWork && !s.leaving.Load() && s.waiting.CompareAndSwap(waitWork, waitBusy)
}

// unused reports whether nothing was ever asked of a connection that worked: how
// it ends says nothing of the credential, nor of how APNs is.
func (s *connState) unused() bool { return s.established.Load() && s.lastPush.Load() == 0 }

// inGoodOrder reports whether a connection that err ended was ended as peers end
// those without work, with nothing on its way: a GOAWAY without an error, or its
// close.
func (s *connState) inGoodOrder(err error) bool {
	if s.lost.Load() > 0 || !s.authenticated.Load() && !s.unused() {
		return false
	}
	var gone *goAwayError
	if errors.As(err, &gone) {
		return gone.code == http2.ErrCodeNo && gone.reason == ""
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, errClosedByPeer)
}

// errClosedByPeer is what the reference engine knows of that.
var errClosedByPeer = errors.New("connection was closed by apns")

// leave has the connection take no more. It reports whether it did until now, and
// whether it may have been woken for work, which is then to go to another.
func (s *connState) leave() (first, woken bool) {
	first = !s.leaving.Swap(true)
	if s.waiting.CompareAndSwap(waitWork, waitBusy) { // see wakeForWork: one of both succeeds
		s.wasIdle.Store(true)
	}
	return first, !s.wasIdle.Load()
}

// errDrained ends a connection that was told to leave, or told its peer so.
var errDrained = errors.New("connection was drained")

// newConn makes a conn of the configured engine on an established connection. It owns nc
// from then on.
func (p *Pool) newConn(nc net.Conn, cred Credential) (conn, error) {
	if p.config.Engine == EngineReference {
		return newReferenceConn(p, nc, cred)
	}
	return newNativeConn(p, nc, cred), nil
}
