package ews

import (
	"context"
	"errors"
	"fmt"
	"time"

	"badgerelay/relay/agent/source"
)

// Peek implements source.Counter. It asks beside those who watch the mailbox, and the
// gate does not hear of it.
func (s *Source) Peek(ctx context.Context, mailbox string) (source.Count, error) {
	if err := s.mayAsk(mailbox, time.Now()); err != nil {
		return source.Count{}, err
	}
	var l *connection
	select {
	case l = <-s.asking:
		defer func() { s.asking <- l }()
	case <-ctx.Done():
		return source.Count{}, ctx.Err()
	}
	asked := time.Now()
	var counts map[string]uint32
	p, err := s.locateOne(ctx, l, mailbox)
	if err == nil {
		counts, _, err = s.ask(ctx, l, job{mailbox: mailbox, url: p.url, anchor: mailbox, cookies: new(cookies)})
	}
	if _, said := errors.AsType[*Error](err); said || errors.Is(err, source.ErrMailbox) {
		err = wrap(verdictOn(err), err)
	}
	if err != nil {
		return source.Count{}, err
	}
	b := box{unread: counts}
	return source.Count{Mailbox: mailbox, Unread: b.total(), Asked: asked}, nil
}

// mayAsk says why a mailbox is not to be asked for now; nil: it may be.
func (s *Source) mayAsk(mailbox string, now time.Time) error {
	if !isAddress(mailbox) {
		return fmt.Errorf("%w: it has no SMTP address for a name", source.ErrElsewhere)
	}
	if err := s.gate.closed(now); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.boxes[mailbox]; b != nil && b.failure != nil && b.notBefore.After(now) && !b.busy {
		return b.failure // it is tried again when its time comes
	}
	return nil
}
