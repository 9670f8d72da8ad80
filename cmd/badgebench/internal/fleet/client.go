package fleet

import (
	"context"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

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
		role, err := g.StartRole(RoleName)
		if err != nil {
			return nil, err
		}
		f.roles = append(f.roles, role)
		part := c
		part.From, part.To = i*c.Agents/processes, (i+1)*c.Agents/processes
		if err := role.Ask(ctx, "Prepare", part, &struct{}{}); err != nil {
			return nil, err
		}
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
		if err := r.Ask(ctx, method, question, &struct{}{}); err != nil {
			return err
		}
	}
	return nil
}

// Connect has the agents connect, spread over the time given.
func (f *Fleet) Connect(ctx context.Context, over time.Duration) error {
	return f.each(ctx, "Connect", over)
}

// Go has all agents together send events at a rate a second; 0: none.
func (f *Fleet) Go(ctx context.Context, rate float64) error {
	return f.each(ctx, "Go", rate/float64(len(f.roles)))
}

// Once has every mailbox send one event, spread over the time given.
func (f *Fleet) Once(ctx context.Context, over time.Duration) error {
	return f.each(ctx, "Once", over)
}

// Reset forgets the latencies so far.
func (f *Fleet) Reset(ctx context.Context) error { return f.each(ctx, "Reset", struct{}{}) }

// State returns what the agents have done so far.
func (f *Fleet) State(ctx context.Context) (all State, err error) {
	latency := newLatency()
	for _, r := range f.roles {
		s, err := child.AskFor[State](ctx, r, "State", struct{}{})
		if err != nil {
			return all, err
		}
		all.add(&s)
		latency.Merge(hdrhistogram.Import(s.Latency))
	}
	all.Latency = latency.Export()
	return all, nil
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
