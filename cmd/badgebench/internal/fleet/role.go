package fleet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"badgerelay/auth"
	"badgerelay/auth/certs"
	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/rig"
)

// RoleName is the role's name on the command line.
const RoleName = "fleet"

// Config says which agents there are. Agents and mailboxes are numbered over
// all organizations.
type Config struct {
	Address       string // of the relay
	CAFile        string // that signed its certificate, PEM
	Organizations []Organization
	Agents        int // in all, spread evenly over the organizations
	PerAgent      int // mailboxes of an agent
	Batch         int // events of a message, at most PerAgent
	PerAddress    int // agents that come from one address of loopback
	From, To      int // the agents of this process
}

// Organization is whose mailboxes the agents have.
type Organization struct {
	Name  string
	Store string // directory of its certificates
	First int    // the number of its first mailbox
	Last  int    // the number after that of its last one
}

// Role is the role's side. Its methods are called by net/rpc, one at a time.
type Role struct {
	config  Config
	members []*member
	ctx     context.Context // of the agents; ends with the process
	cancel  context.CancelFunc
	running sync.WaitGroup

	stop    context.CancelFunc // ends what Go began
	sending sync.WaitGroup

	failures, refusals atomic.Uint64

	mu      sync.Mutex // guards latency
	latency *hdrhistogram.Histogram
}

// Run serves a parent until it lets go.
func Run(in, out *os.File) error {
	r := &Role{latency: load.NewLatency(), stop: func() {}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	err := child.Serve(in, out, r)
	r.halt()
	r.cancel()
	r.running.Wait()
	return err
}

// Start makes the agents, each with a token of its own that is good for as
// long as a measurement takes.
func (r *Role) Start(c Config, _ *struct{}) error {
	r.config = c
	config, err := rig.AgentTLS(c.CAFile)
	if err != nil {
		return err
	}
	issuers := map[string]*auth.Issuer{}
	for i := c.From; i < c.To; i++ {
		organization := c.organizationOf(i)
		if issuers[organization.Name] == nil {
			if issuers[organization.Name], err = newIssuer(organization); err != nil {
				return err
			}
		}
		m, err := newMember(r, i, config.Clone(), issuers[organization.Name])
		if err != nil {
			return err
		}
		r.members = append(r.members, m)
	}
	return nil
}

func (c *Config) organizationOf(agent int) *Organization {
	first := agent * c.PerAgent
	for i := range c.Organizations {
		if first < c.Organizations[i].Last {
			return &c.Organizations[i]
		}
	}
	return &c.Organizations[len(c.Organizations)-1]
}

func newIssuer(o *Organization) (*auth.Issuer, error) {
	store, err := certs.OpenStore(o.Store)
	if err != nil {
		return nil, err
	}
	pair, err := store.Current()
	if err != nil {
		return nil, err
	}
	return rig.NewIssuer(pair, o.Name)
}

// Connect has the agents connect, spread over the time given, and returns when
// each has been told to.
func (r *Role) Connect(over time.Duration, _ *struct{}) error {
	for i, m := range r.members {
		m.start(r.ctx, &r.running)
		if i%16 == 0 {
			time.Sleep(16 * over / time.Duration(len(r.members)))
		}
	}
	return nil
}

// Go has the agents together send events at a rate: each message of an agent, and
// from a mailbox on, that are drawn by chance; or, with Once, each mailbox one event.
func (r *Role) Go(p load.Pace, _ *struct{}) error {
	r.halt()
	ctx, stop := context.WithCancel(r.ctx)
	r.stop = stop
	if p.Once {
		r.sending.Go(func() { r.sendOnce(ctx, stop, p.Rate) }) // ends with stop, or when all is sent
	} else {
		r.sending.Go(func() { r.sendRandom(ctx, p.Rate) }) // ends with stop
	}
	return nil
}

// halt ends what Go began.
func (r *Role) halt() {
	r.stop()
	r.sending.Wait()
}

func (r *Role) sendRandom(ctx context.Context, rate float64) {
	random := rand.New(rand.NewPCG(uint64(r.config.From), uint64(r.config.Agents)))
	paced(ctx, rate/float64(r.config.Batch), func(intended time.Time) {
		m, mailbox := r.members[random.IntN(len(r.members))], random.IntN(r.config.PerAgent)
		for i := range r.config.Batch {
			m.send((mailbox+i)%r.config.PerAgent, intended)
		}
	})
}

func (r *Role) sendOnce(ctx context.Context, stop func(), rate float64) {
	next := 0
	paced(ctx, rate, func(intended time.Time) {
		r.members[next%len(r.members)].send(next/len(r.members), intended)
		if next++; next == len(r.members)*r.config.PerAgent {
			stop()
		}
	})
}

// Stop stops sending, and waits until everything has settled or timeout is over. What
// has not settled then is an error.
func (r *Role) Stop(timeout time.Duration, _ *struct{}) error {
	r.halt()
	deadline := time.Now().Add(timeout)
	return rig.Poll(r.ctx, 20*time.Millisecond, func() (bool, error) {
		var unsettled uint64
		for _, m := range r.members {
			unsettled += m.agent.Ledger().Unsettled
		}
		if time.Now().After(deadline) {
			return false, fmt.Errorf("%d events have not settled within %v", unsettled, timeout)
		}
		return unsettled == 0, nil
	})
}

// pace is how often paced looks what is due.
const pace = time.Millisecond

// paced calls f so many times a second, with the time at which it was due, until
// ctx is done.
func paced(ctx context.Context, rate float64, f func(intended time.Time)) {
	ticker := time.NewTicker(pace)
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
func (r *Role) Reset(_ struct{}, _ *struct{}) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latency.Reset()
	return nil
}

// State returns what the agents have done so far.
func (r *Role) State(_ struct{}, s *load.State) (err error) {
	for _, m := range r.members {
		if m.agent.Status().Connected {
			s.Connected++
		}
		l := m.agent.Ledger()
		s.Sent += l.Submitted
		s.Unsettled += l.Unsettled
	}
	s.Events = s.Sent // a newer one settles those before
	s.Failures, s.Refusals = r.failures.Load(), r.refusals.Load()
	r.mu.Lock()
	s.Latency = r.latency.Export()
	r.mu.Unlock()
	s.Usage, err = child.UsageOf(os.Getpid())
	return err
}

// Versions returns how many events each mailbox of this process has sent.
// Nothing may be being sent.
func (r *Role) Versions(_ struct{}, versions *[]uint32) error {
	for _, m := range r.members {
		*versions = append(*versions, m.versions...)
	}
	return nil
}
