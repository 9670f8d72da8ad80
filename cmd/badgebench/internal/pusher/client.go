package pusher

import (
	"context"

	"badgerelay/cmd/internal/child"
)

// Pusher is a client that runs as a child.
type Pusher struct{ *child.Role }

// Start starts a client in a process of its own.
func Start(ctx context.Context, g *child.Group, c Config) (*Pusher, error) {
	role, err := child.StartAs(ctx, g, RoleName, c)
	return &Pusher{role}, err
}

// WarmUp pushes, n at least, until every connection is up.
func (p *Pusher) WarmUp(ctx context.Context, n int64) error { return p.Ask(ctx, "WarmUp", n, nil) }

// Push pushes n badges.
func (p *Pusher) Push(ctx context.Context, n int64) (Pushed, error) {
	return child.AskFor[Pushed](ctx, p.Role, "Push", n)
}

// Offer offers pushes at a rate.
func (p *Pusher) Offer(ctx context.Context, o Offer) (Flow, error) {
	return child.AskFor[Flow](ctx, p.Role, "Offer", o)
}
