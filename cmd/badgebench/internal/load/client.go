package load

import (
	"context"
	"time"

	"badgerelay/cmd/internal/child"
)

// Agents are load generators that run as a child.
type Agents struct{ *child.Role }

// Start starts agents in a process of their own. They send nothing before Go.
func Start(ctx context.Context, g *child.Group, c Config) (*Agents, error) {
	role, err := child.StartAs(ctx, g, RoleName, c)
	return &Agents{role}, err
}

// Go sets the pace.
func (a *Agents) Go(ctx context.Context, p Pace) error { return a.Ask(ctx, "Go", p, nil) }

// Stop stops sending and waits until everything has settled.
func (a *Agents) Stop(ctx context.Context, timeout time.Duration) error {
	return a.Ask(ctx, "Stop", timeout, nil)
}

// Reset forgets the latencies so far.
func (a *Agents) Reset(ctx context.Context) error {
	return a.Ask(ctx, "Reset", struct{}{}, nil)
}

// State returns what the agents have done so far.
func (a *Agents) State(ctx context.Context) (State, error) {
	return child.AskFor[State](ctx, a.Role, "State", struct{}{})
}

// Versions returns the newest version of each mailbox.
func (a *Agents) Versions(ctx context.Context) ([]uint32, error) {
	return child.AskFor[[]uint32](ctx, a.Role, "Versions", struct{}{})
}

// Processes returns the process, for who watches it.
func (a *Agents) Processes() []*child.Process { return []*child.Process{a.Process} }
