package site

import (
	"context"

	"badgerelay/cmd/internal/child"
)

// Site is a mail site that runs as a child.
type Site struct{ *child.Role }

// Start starts a site in a process of its own.
func Start(ctx context.Context, g *child.Group, c Config) (*Site, error) {
	role, err := child.StartAs(ctx, g, RoleName, c)
	return &Site{role}, err
}

// Set says what mailboxes hold now.
func (s *Site) Set(ctx context.Context, counts []Count) error {
	return s.Ask(ctx, "Set", counts, nil)
}

// Subscribe tries once to put a device on a mailbox.
func (s *Site) Subscribe(ctx context.Context, to Subscription) error {
	return s.Ask(ctx, "Subscribe", to, nil)
}

// State returns what the site has done so far.
func (s *Site) State(ctx context.Context) (State, error) {
	return child.AskFor[State](ctx, s.Role, "State", struct{}{})
}
