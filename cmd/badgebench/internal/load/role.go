package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/rig"
	pb "badgerelay/proto/badgerelay/v1"
)

// RoleName is the role's name on the command line.
const RoleName = "agents"

// Outcomes is above every outcome of the contract.
const Outcomes = 16

// Delivered is the contract's number of what was delivered.
const Delivered = uint64(pb.Outcome_OUTCOME_DELIVERED)

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

// Pace says how fast all agents together send.
type Pace struct {
	Rate  float64       // events a second; 0: as fast as they settle
	Every time.Duration // with a rate: the least time between two batches of an agent
	Once  bool          // one event for each mailbox, and no more
}

// State is what agents have done so far: these, or those of package fleet.
type State struct {
	Sent      uint64
	Events    uint64 // that count for a measurement: those that have settled; of a fleet, that were sent
	Unsettled uint64
	Outcomes  [Outcomes]uint64       // by the contract's number; of a fleet, none
	Latency   *hdrhistogram.Snapshot // microseconds from the intended time to the settlement, since Reset
	Usage     child.Usage

	// Of a fleet.
	Connected int    // agents that have a stream
	Failures  uint64 // streams that ended or could not be opened
	Refusals  uint64 // of these, with a word of the relay's other than that it drains
}

// Role is the role's side. Its methods are called by net/rpc.
type Role struct {
	config Config
	agents []*agent
	ctx    context.Context // of the streams; ends with the process
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Run serves a parent until it lets go.
func Run(in, out *os.File) error {
	r := &Role{}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	err := child.Serve(in, out, r)
	r.cancel()
	r.wg.Wait()
	return err
}

// Start opens every agent's stream. It is the first call, and made once.
func (r *Role) Start(c Config, _ *struct{}) error {
	tlsConfig, err := rig.AgentTLS(c.CAFile)
	if err != nil {
		return err
	}
	r.config = c
	for i := range c.Agents {
		first := i * c.Mailboxes / c.Agents
		a, err := newAgent(r.ctx, &r.config, tlsConfig, c.Addresses[i%len(c.Addresses)], first, (i+1)*c.Mailboxes/c.Agents-first)
		if err != nil {
			return err
		}
		r.agents = append(r.agents, a)
		r.wg.Go(func() { a.send(r.ctx) }) // ends with ctx
		r.wg.Go(a.receive)                // ends with the stream, whose context is ctx
	}
	return nil
}

// Go sets the pace; agents that sent at another pace begin anew.
func (r *Role) Go(p Pace, _ *struct{}) error {
	start := time.Now()
	for i, a := range r.agents {
		share := &pace{rate: p.Rate / float64(len(r.agents)), every: p.Every, left: math.MaxInt}
		if p.Once {
			share.left = len(a.versions)
		}
		share.start = start.Add(p.Every * time.Duration(i) / time.Duration(len(r.agents)))
		a.set(share)
	}
	return nil
}

// Stop stops sending, and waits until everything has settled or timeout is
// over. What has not settled then is an error.
func (r *Role) Stop(timeout time.Duration, _ *struct{}) error {
	for _, a := range r.agents {
		a.set(nil)
	}
	deadline := time.Now().Add(timeout)
	return rig.Poll(r.ctx, time.Millisecond, func() (bool, error) {
		var s State
		if err := r.add(&s); err != nil {
			return false, err
		}
		if time.Now().After(deadline) {
			return false, fmt.Errorf("%d events have not settled within %v", s.Unsettled, timeout)
		}
		return s.Unsettled == 0 && r.idle(), nil
	})
}

func (r *Role) idle() bool {
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

// Reset forgets the latencies so far.
func (r *Role) Reset(_ struct{}, _ *struct{}) error {
	for _, a := range r.agents {
		a.mu.Lock()
		a.latency.Reset()
		a.mu.Unlock()
	}
	return nil
}

// State returns what the agents have done so far. The end of a stream is an
// error.
func (r *Role) State(_ struct{}, s *State) (err error) {
	if err := r.add(s); err != nil {
		return err
	}
	sum := NewLatency()
	for _, a := range r.agents {
		a.mu.Lock()
		sum.Merge(a.latency)
		a.mu.Unlock()
	}
	s.Latency = sum.Export()
	s.Usage, err = child.UsageOf(os.Getpid())
	return err
}

func (r *Role) add(s *State) error {
	var errs []error
	for _, a := range r.agents {
		a.mu.Lock()
		s.Sent += a.sent
		s.Unsettled += uint64(a.unsettled)
		for i, n := range a.outcomes {
			s.Outcomes[i] += n
			s.Events += n
		}
		if a.err != nil {
			errs = append(errs, fmt.Errorf("agent's stream ended: %w", a.err))
		}
		a.mu.Unlock()
	}
	return errors.Join(errs...)
}

// Versions returns the newest version of each mailbox, by number; 0 where it
// had no event. Nothing may be being sent.
func (r *Role) Versions(_ struct{}, versions *[]uint32) error {
	all := make([]uint32, 0, r.config.Mailboxes)
	for _, a := range r.agents {
		all = append(all, a.versions...)
	}
	*versions = all
	return nil
}
