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

// link is one connection to APNs: the contract that both engines keep.
//
// A link takes work from its pool (Pool.take) for as many streams as it has
// free, returns every request it took in exactly one result (Pool.finish), and
// reports its state in linkState.
type link interface {
	// run serves until the connection has ended, and returns why; nil after a
	// drain. Everything taken has been returned when it returns, and every
	// goroutine it started has ended. When ctx ends, the connection is cut.
	run(ctx context.Context) error
	// kick makes a link that waits for work look for it. It never blocks.
	kick()
	// drain makes the link take no more and end once its answers are in, or
	// after a time. It never blocks.
	drain()
	state() *linkState
}

// linkState is what a pool sees of a link. The link writes it; any goroutine
// reads it.
type linkState struct {
	// waiting is how a link's taking goroutine waits; waitBusy: it doesn't.
	waiting atomic.Int32
	// granted is how many streams may be open now; inFlight how many are.
	granted  atomic.Int64
	inFlight atomic.Int64
	// proven is set by the first answer that shows the credential is taken.
	proven atomic.Bool
	// greeted is set when the peer has shown that it speaks HTTP/2: by its
	// SETTINGS, or by staying.
	greeted atomic.Bool
	// lost counts pushes that were on their way when the connection ended.
	lost atomic.Int64
	// leaving is set when no more is taken, and rested with it if the link was
	// waiting for work then, and nobody had woken it.
	leaving, rested atomic.Bool
	// began is set before anybody else sees the link.
	began time.Time
	// lastPush is when something was last taken, in nanoseconds since began: the
	// system's clock may be set meanwhile.
	lastPush atomic.Int64
}

// at returns the time that is so many nanoseconds after the link's beginning.
func (s *linkState) at(sinceBegan int64) time.Time { return s.began.Add(time.Duration(sinceBegan)) }

// pushed notes that something was taken.
func (s *linkState) pushed(now time.Time) { s.lastPush.Store(int64(now.Sub(s.began))) }

// idle returns how long nothing was taken.
func (s *linkState) idle(now time.Time) time.Duration { return now.Sub(s.at(s.lastPush.Load())) }

// What a link's taking goroutine waits for.
const (
	waitBusy    int32 = iota // it does not wait
	waitWork                 // work: streams are free
	waitStreams              // free streams
)

// wakeForWork reports whether the link was waiting for work; if so, the caller
// has the duty to kick it, and nobody else has. A link that begins to leave
// right then calls Pool.Wake itself, for the work it was woken for.
func (s *linkState) wakeForWork() bool {
	return s.waiting.Load() == waitWork && !s.leaving.Load() && s.waiting.CompareAndSwap(waitWork, waitBusy)
}

// unused reports whether nothing was ever asked of a connection that worked: how
// it ends says nothing of the credential, nor of how APNs is.
func (s *linkState) unused() bool { return s.greeted.Load() && s.lastPush.Load() == 0 }

// inGoodOrder reports whether a connection that err ended was ended as peers end
// those without work, with nothing on its way: a GOAWAY without an error, or its
// close.
func (s *linkState) inGoodOrder(err error) bool {
	if s.lost.Load() > 0 || !s.proven.Load() && !s.unused() {
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

// leave has the link take no more. It reports whether it did until now, and
// whether it may have been woken for work, which is then to go to another.
func (s *linkState) leave() (first, woken bool) {
	first = !s.leaving.Swap(true)
	if s.waiting.CompareAndSwap(waitWork, waitBusy) { // see wakeForWork: one of both succeeds
		s.rested.Store(true)
	}
	return first, !s.rested.Load()
}

// errDrained ends a link that was told to leave, or told its peer so.
var errDrained = errors.New("connection was drained")

// newLink makes a link of an engine on an established connection. It owns nc
// from then on.
func (p *Pool) newLink(nc net.Conn, cred Credential) (link, error) {
	if p.config.Engine == EngineReference {
		return newReferenceLink(p, nc, cred)
	}
	return newNativeLink(p, nc, cred), nil
}
