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
	role, err := g.StartRole(RoleName)
	if err != nil {
		return nil, err
	}
	return &Agents{role}, role.Ask(ctx, "Start", c, &struct{}{})
}

// Go sets the pace.
func (a *Agents) Go(ctx context.Context, p Pace) error { return a.Ask(ctx, "Go", p, &struct{}{}) }

// Stop stops sending and waits until everything has settled.
func (a *Agents) Stop(ctx context.Context, timeout time.Duration) error {
	return a.Ask(ctx, "Stop", timeout, &struct{}{})
}

// Reset forgets the latencies so far.
func (a *Agents) Reset(ctx context.Context) error {
	return a.Ask(ctx, "Reset", struct{}{}, &struct{}{})
}

// State returns what the agents have done so far.
func (a *Agents) State(ctx context.Context) (State, error) {
	return child.AskFor[State](ctx, a.Role, "State", struct{}{})
}

// Versions returns the newest version of each mailbox.
func (a *Agents) Versions(ctx context.Context) ([]uint32, error) {
	return child.AskFor[[]uint32](ctx, a.Role, "Versions", struct{}{})
}
