package fleet

import (
	"context"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"

	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/internal/child"
)

// perProcess is how many agents one process runs: few enough for the
// descriptors that a process may have open by default, and for its collector.
const perProcess = 2500

// Fleet is all agents, in as many processes as it takes.
type Fleet struct {
	roles []*child.Role
}

// Start starts the processes. Their agents connect with Connect.
func Start(ctx context.Context, g *child.Group, c Config) (*Fleet, error) {
	f := &Fleet{}
	processes := (c.Agents + perProcess - 1) / perProcess
	for i := range processes {
		part := c
		part.From, part.To = i*c.Agents/processes, (i+1)*c.Agents/processes
		role, err := child.StartAs(ctx, g, RoleName, part)
		if err != nil {
			return nil, err
		}
		f.roles = append(f.roles, role)
	}
	return f, nil
}

// Processes returns the processes, for who watches them.
func (f *Fleet) Processes() (all []*child.Process) {
	for _, r := range f.roles {
		all = append(all, r.Process)
	}
	return all
}

// each asks every process.
func (f *Fleet) each(ctx context.Context, method string, question any) error {
	for _, r := range f.roles {
		if err := r.Ask(ctx, method, question, nil); err != nil {
			return err
		}
	}
	return nil
}

// Connect has the agents connect, spread over the time given.
func (f *Fleet) Connect(ctx context.Context, over time.Duration) error {
	return f.each(ctx, "Connect", over)
}

// Go has all agents together send events at a rate, which is not 0; each mailbox one
// with Once.
func (f *Fleet) Go(ctx context.Context, pace load.Pace) error {
	pace.Rate /= float64(len(f.roles))
	return f.each(ctx, "Go", pace)
}

// Stop stops sending and waits until everything has settled.
func (f *Fleet) Stop(ctx context.Context, timeout time.Duration) error {
	all, ctx := errgroup.WithContext(ctx) // each stops at once, whatever the others have unsettled
	for _, r := range f.roles {
		all.Go(func() error { return r.Ask(ctx, "Stop", timeout, nil) })
	}
	return all.Wait()
}

// Reset forgets the latencies so far.
func (f *Fleet) Reset(ctx context.Context) error { return f.each(ctx, "Reset", struct{}{}) }

// State returns what the agents have done so far.
func (f *Fleet) State(ctx context.Context) (all load.State, err error) {
	latency := load.NewLatency()
	for _, r := range f.roles {
		s, err := child.AskFor[load.State](ctx, r, "State", struct{}{})
		if err != nil {
			return all, err
		}
		add(&all, &s)
		latency.Merge(hdrhistogram.Import(s.Latency))
	}
	all.Latency = latency.Export()
	return all, nil
}

func add(all, s *load.State) {
	all.Connected += s.Connected
	all.Sent += s.Sent
	all.Events += s.Events
	all.Unsettled += s.Unsettled
	all.Failures += s.Failures
	all.Refusals += s.Refusals
	all.Usage.CPU += s.Usage.CPU
	all.Usage.Resident += s.Usage.Resident
}

// Versions returns how many events each mailbox has sent, by number.
func (f *Fleet) Versions(ctx context.Context) (all []uint32, err error) {
	for _, r := range f.roles {
		some, err := child.AskFor[[]uint32](ctx, r, "Versions", struct{}{})
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// End ends the processes.
func (f *Fleet) End() {
	for _, r := range f.roles {
		r.End()
	}
}
