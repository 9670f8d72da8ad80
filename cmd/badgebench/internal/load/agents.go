package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"badgerelay/cmd/internal/rig"
)

// Config says which agents there are.
type Config struct {
	Addresses []string // of the relays, which agents take in turn
	CAFile    string   // that signed their certificate, PEM
	Token     string
	Mailboxes int // in all; each belongs to one agent
	Agents    int
	Batch     int // events in a message, at most
	Window    int // unsettled events of an agent, at most, without a rate
}

// Agents are agents that stream as fast as a relay settles.
type Agents struct {
	agents []*stream
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Start opens every agent's stream. They send nothing before Go. The caller ends them.
func Start(ctx context.Context, c Config) (*Agents, error) {
	tlsConfig, err := rig.AgentTLS(c.CAFile)
	if err != nil {
		return nil, err
	}
	r := &Agents{}
	ctx, r.cancel = context.WithCancel(ctx)
	for i := range c.Agents {
		first := i * c.Mailboxes / c.Agents
		a, err := newStream(ctx, &c, tlsConfig, c.Addresses[i%len(c.Addresses)], first, (i+1)*c.Mailboxes/c.Agents-first)
		if err != nil {
			r.End()
			return nil, err
		}
		r.agents = append(r.agents, a)
		r.wg.Go(func() { a.send(ctx) }) // ends with ctx
		r.wg.Go(a.receive)              // ends with the stream, whose context is ctx
	}
	return r, nil
}

// End ends the streams, whatever is under way.
func (r *Agents) End() {
	r.cancel()
	r.wg.Wait()
	for _, a := range r.agents {
		_ = a.conn.Close() // nobody uses it
	}
}

// Go sets the pace; agents that sent at another pace begin anew.
func (r *Agents) Go(p Pace) {
	start := time.Now()
	for i, a := range r.agents {
		share := &pace{rate: p.Rate / float64(len(r.agents)), left: math.MaxInt}
		if p.Once {
			share.left = len(a.versions)
		}
		share.start = start.Add(tick * time.Duration(i) / time.Duration(len(r.agents)))
		a.set(share)
	}
}

// Stop stops sending, and waits until everything has settled or timeout is
// over. What has not settled then is an error.
func (r *Agents) Stop(ctx context.Context, timeout time.Duration) error {
	for _, a := range r.agents {
		a.set(nil)
	}
	deadline := time.Now().Add(timeout)
	return rig.Poll(ctx, tick, func() (bool, error) {
		s, err := r.State()
		if err == nil && s.Unsettled > 0 && time.Now().After(deadline) {
			err = fmt.Errorf("%d events have not settled within %v", s.Unsettled, timeout)
		}
		return s.Unsettled == 0 && r.idle(), err
	})
}

func (r *Agents) idle() bool {
	for _, a := range r.agents {
		a.mu.Lock()
		idle := a.idle
		a.mu.Unlock()
		if !idle {
			return false
		}
	}
	return true
}

// State returns what the agents have done so far. The end of a stream is an
// error.
func (r *Agents) State() (s State, err error) {
	for _, a := range r.agents {
		a.mu.Lock()
		s.Sent += a.sent
		s.Unsettled += uint64(a.unsettled)
		for i, n := range a.outcomes {
			s.Outcomes[i] += n
			s.Events += n
		}
		if a.err != nil {
			err = errors.Join(err, fmt.Errorf("agent's stream ended: %w", a.err))
		}
		a.mu.Unlock()
	}
	return s, err
}

// Reset forgets the latencies so far.
func (r *Agents) Reset() {
	for _, a := range r.agents {
		a.mu.Lock()
		a.latency.Reset()
		a.mu.Unlock()
	}
}

// Latency returns how long events took that were delivered since Reset, from when they
// were to be sent until they had settled, in microseconds.
func (r *Agents) Latency() *hdrhistogram.Histogram {
	all := newLatency()
	for _, a := range r.agents {
		a.mu.Lock()
		all.Merge(a.latency)
		a.mu.Unlock()
	}
	return all
}

// Versions returns the newest version of each mailbox, by number; 0 where it
// had no event. Nothing may be being sent.
func (r *Agents) Versions() (all []uint32) {
	for _, a := range r.agents {
		all = append(all, a.versions...)
	}
	return all
}
