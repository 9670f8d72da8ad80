package relay

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"badgerelay/apns"
)

// A process can be stopped, and its machine suspended, for any time. Its agents
// have gone to other relays meanwhile, and what it has of them is old. So where
// there are other relays, the relay notes once in a while that it runs, and
// hands pushes out until some time after that only. A push carries that moment as
// its deadline, which package apns looks at last thing before the socket. Where the
// moment has passed, the process was stopped: the relay ends every stream, and with
// it all that was pending, before it hands out anything.
//
// The bound is a sixth of Config.MaxInFlight: ten seconds of its minute. MaxInFlight of
// package ingest says what the other fifty are for.

// pulse is how the relay knows that it was not stopped.
type pulse struct {
	bound time.Duration // 0: there is no other relay, and nothing is looked at

	mu    sync.Mutex                    // held to find out that the process was stopped
	until atomic.Pointer[apns.Deadline] // when that will be so, unless the pulse beats
	stops atomic.Uint64                 // how often it was
}

// begin starts the pulse.
func (p *pulse) begin(bound time.Duration) {
	p.bound = bound
	if bound > 0 {
		p.until.Store(apns.DeadlineIn(bound))
	}
}

// pushDeadline returns until when a push may be handed to the socket; nil: at any time.
// Where the process was stopped, everything pending has ended when it returns.
func (r *Relay) pushDeadline() *apns.Deadline {
	until := r.pulse.until.Load()
	if !until.Passed() {
		return until
	}
	r.pulse.mu.Lock()
	defer r.pulse.mu.Unlock()
	if until = r.pulse.until.Load(); !until.Passed() {
		return until // another goroutine was here
	}
	r.dropStreams()
	until = apns.DeadlineIn(r.pulse.bound)
	r.pulse.until.Store(until)
	return until
}

// dropIfStopped ends everything pending where the process was stopped.
func (r *Relay) dropIfStopped() { r.pushDeadline() }

// beat notes that the process runs.
func (r *Relay) beat() {
	next := apns.DeadlineIn(r.pulse.bound) // before the look: it passes if the process is stopped right after
	if until := r.pulse.until.Load(); until.Passed() || !r.pulse.until.CompareAndSwap(until, next) {
		r.dropIfStopped()
	}
}

// runPulse lets the pulse beat until ctx is done.
func (r *Relay) runPulse(ctx context.Context) {
	if r.pulse.bound == 0 {
		return
	}
	tick := time.NewTicker(r.pulse.bound / 10)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.beat()
		case <-ctx.Done():
			return
		}
	}
}

// dropStreams ends every stream because the process was stopped.
func (r *Relay) dropStreams() {
	r.openMu.Lock()
	streams := make([]*Stream, 0, len(r.open))
	for s := range r.open {
		streams = append(streams, s)
	}
	r.openMu.Unlock()
	for _, s := range streams {
		if s.onDropped != nil {
			s.onDropped()
		}
		s.Close()
	}
	r.pulse.stops.Add(1)
	r.logger.Warn("the process was stopped, or its machine slept, for longer than counts may wait: every agent has to send again",
		"streams", len(streams), "bound", r.pulse.bound)
}
