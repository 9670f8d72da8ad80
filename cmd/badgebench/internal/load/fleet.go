package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"badgerelay/cmd/internal/rig"
)

// FleetConfig says which agents a fleet has.
type FleetConfig struct {
	Address       string // of the relay
	CAFile        string // that signed its certificate, PEM
	Organizations []*rig.Organization
	PerAgent      int // mailboxes of an agent
	Batch         int // events of a message, at most PerAgent
}

// Fleet is many agents that have few events.
type Fleet struct {
	config  FleetConfig
	members []*member
	ctx     context.Context // of the agents; ends with End
	cancel  context.CancelFunc
	running sync.WaitGroup

	halt    context.CancelFunc // ends what Go began
	sending sync.WaitGroup

	failures, refusals atomic.Uint64

	mu      sync.Mutex // guards latency
	latency *hdrhistogram.Histogram
}

// NewFleet makes the agents, which Connect starts. The caller ends them.
func NewFleet(ctx context.Context, c FleetConfig) (*Fleet, error) {
	tlsConfig, err := rig.AgentTLS(c.CAFile)
	if err != nil {
		return nil, err
	}
	f := &Fleet{config: c, halt: func() {}, latency: newLatency()}
	f.ctx, f.cancel = context.WithCancel(ctx)
	for _, o := range c.Organizations {
		issuer, err := o.Issuer()
		if err != nil {
			return nil, err
		}
		for first := o.First; first < o.First+o.Mailboxes; first += c.PerAgent {
			m, err := newMember(f, o, first, tlsConfig.Clone(), issuer)
			if err != nil {
				return nil, fmt.Errorf("make agent %d: %w", len(f.members), err)
			}
			f.members = append(f.members, m)
		}
	}
	return f, nil
}

// Connect has the agents connect, spread over the time given, and returns when
// each has been told to.
func (f *Fleet) Connect(over time.Duration) {
	for i, m := range f.members {
		f.running.Go(func() { _ = m.agent.Run(f.ctx) }) // ends with ctx, and runs once
		if i%16 == 0 {
			rig.Wait(f.ctx, 16*over/time.Duration(len(f.members)))
		}
	}
}

// Go has the agents together send events at a rate: each message of an agent, and
// from a mailbox on, that are drawn by chance; or, with Once, each mailbox one event.
func (f *Fleet) Go(p Pace) {
	f.pause()
	ctx, halt := context.WithCancel(f.ctx)
	f.halt = halt
	f.sending.Go(func() { // ends with halt, or when all is sent
		if p.Once {
			f.sendOnce(ctx, halt, p.Rate)
		} else {
			f.sendRandom(ctx, p.Rate)
		}
	})
}

// pause ends what Go began.
func (f *Fleet) pause() {
	f.halt()
	f.sending.Wait()
}

func (f *Fleet) sendRandom(ctx context.Context, rate float64) {
	random := rand.New(rand.NewPCG(0, uint64(len(f.members))))
	paced(ctx, rate/float64(f.config.Batch), func(intended time.Time) {
		m, mailbox := f.members[random.IntN(len(f.members))], random.IntN(f.config.PerAgent)
		for i := range f.config.Batch {
			m.send((mailbox+i)%f.config.PerAgent, intended)
		}
	})
}

func (f *Fleet) sendOnce(ctx context.Context, halt func(), rate float64) {
	next := 0
	paced(ctx, rate, func(intended time.Time) {
		f.members[next%len(f.members)].send(next/len(f.members), intended)
		if next++; next == len(f.members)*f.config.PerAgent {
			halt()
		}
	})
}

// Stop stops sending, and waits until everything has settled or timeout is over. What
// has not settled then is an error.
func (f *Fleet) Stop(ctx context.Context, timeout time.Duration) error {
	f.pause()
	deadline := time.Now().Add(timeout)
	return rig.Poll(ctx, 20*time.Millisecond, func() (bool, error) {
		var unsettled uint64
		for _, m := range f.members {
			unsettled += m.agent.Ledger().Unsettled
		}
		if unsettled > 0 && time.Now().After(deadline) {
			return false, fmt.Errorf("%d events have not settled within %v", unsettled, timeout)
		}
		return unsettled == 0, nil
	})
}

// paced calls f so many times a second, with the time at which it was due, until
// ctx is done.
func paced(ctx context.Context, rate float64, f func(intended time.Time)) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	start := time.Now()
	for done := 0.0; ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		for due := time.Since(start).Seconds() * rate; done < due && ctx.Err() == nil; done++ {
			f(start.Add(time.Duration(done / rate * float64(time.Second))))
		}
	}
}

// Reset forgets the latencies so far.
func (f *Fleet) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latency.Reset()
}

// Latency is as Agents.Latency, of the newest event of each mailbox.
func (f *Fleet) Latency() *hdrhistogram.Histogram {
	f.mu.Lock()
	defer f.mu.Unlock()
	return hdrhistogram.Import(f.latency.Export())
}

// State returns what the agents have done so far.
func (f *Fleet) State() (s State, err error) {
	for _, m := range f.members {
		if m.agent.Status().Connected {
			s.Connected++
		}
		l := m.agent.Ledger()
		s.Sent += l.Submitted
		s.Unsettled += l.Unsettled
	}
	s.Events = s.Sent // a newer one settles those before
	s.Failures, s.Refusals = f.failures.Load(), f.refusals.Load()
	return s, nil
}

// Versions returns how many events each mailbox has sent, by number. Nothing may be
// being sent.
func (f *Fleet) Versions() (all []uint32) {
	for _, m := range f.members {
		all = append(all, m.versions...)
	}
	return all
}

// End ends the agents, whatever they hold.
func (f *Fleet) End() {
	f.pause()
	f.cancel()
	f.running.Wait()
}
