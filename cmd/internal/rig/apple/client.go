package apple

import (
	"context"

	"badgerelay/cmd/internal/child"
)

// Apple is a simulator that runs as a child.
type Apple struct {
	*child.Role
	Info
}

// Start starts a simulator in a process of its own.
func Start(ctx context.Context, g *child.Group, c Config) (*Apple, error) {
	role, err := g.StartRole(RoleName)
	if err != nil {
		return nil, err
	}
	a := &Apple{Role: role}
	if err := role.Ask(ctx, "Start", c, &a.Info); err != nil {
		return nil, err
	}
	return a, nil
}

// State returns what the simulator has done so far.
func (a *Apple) State(ctx context.Context) (State, error) {
	return child.AskFor[State](ctx, a.Role, "State", struct{}{})
}

// Badges returns what the devices show, by number.
func (a *Apple) Badges(ctx context.Context) ([]uint32, error) {
	return child.AskFor[[]uint32](ctx, a.Role, "Badges", struct{}{})
}

// Faults returns how often the simulator's clients did what Apple would hold
// against them.
func (s *State) Faults() (n int) {
	for _, count := range s.ClientFaults {
		n += count
	}
	return n
}
