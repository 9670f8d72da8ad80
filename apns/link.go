package apns

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"
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
	// leaving is set when no more is taken.
	leaving atomic.Bool
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
