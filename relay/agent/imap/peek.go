package imap

import (
	"context"

	"badgerelay/relay/agent/source"
)

// Peek implements source.Counter: on the connection that watches the mailbox, or else
// on one of its own, of which neither the gate nor the limit hears.
func (s *Source) Peek(ctx context.Context, mailbox string) (source.Count, error) {
	if c, ok, err := s.askTurn(ctx, mailbox); ok {
		return c, err
	}
	if err := s.mayAsk(mailbox); err != nil {
		return source.Count{}, err
	}
	if err := s.asking.take(ctx, s.limit, s.fewerAskers); err != nil {
		return source.Count{}, err
	}
	defer s.asking.give(s.limit)
	n, err := s.open(ctx, mailbox)
	if err != nil {
		return source.Count{}, err
	}
	defer n.close()
	return n.count()
}
