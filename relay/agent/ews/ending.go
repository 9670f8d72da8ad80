package ews

import (
	"context"
	"sync"
	"time"
)

// How long a source that ends takes for its subscriptions, and how many of them
// it ends at once. Ours: a stop is not to wait for a server.
const (
	endBudget = 2 * time.Second
	endAtOnce = 8
)

// subscriptionLife is after which time the server has ended a subscription that
// nobody streams. Source: Exchange Web Services, "Notification subscriptions,
// mailbox events, and EWS in Exchange" (read 2026-11).
const subscriptionLife = 30 * time.Minute

// leftover is a subscription that nobody will stream any more. Until it ends it
// counts against its mailbox's limit.
type leftover struct {
	job
	subscription string
	since        time.Time
}

// abandon has b's subscription ended, as soon as no stream tells of it: to end it
// before would end the stream for the others. The caller holds mu, and takes it
// from b.
func (s *Source) abandon(b *box) {
	if b.subscription == "" {
		return
	}
	g := b.group
	left := b.leftover(time.Now())
	if g.tells(b) {
		g.abandoned = append(g.abandoned, left)
		return
	}
	s.leftovers = append(s.leftovers, left)
	notify(s.abandoned)
}

// leftover returns b's subscription. The caller holds Source.mu.
func (b *box) leftover(now time.Time) leftover {
	g := b.group
	return leftover{job{mailbox: b.mailbox, url: g.url, anchor: or(g.anchor, b.mailbox), cookies: g.cookies}, b.subscription, now}
}

// endLeftovers ends what is left over, one after the other, until ctx is done:
// nobody waits for it.
func (s *Source) endLeftovers(ctx context.Context) {
	l := newConnection(&s.config)
	defer l.close()
	for {
		left, ok := s.nextLeftover(time.Now())
		if !ok {
			select {
			case <-s.abandoned:
				continue
			case <-ctx.Done():
				return
			}
		}
		if s.gate.enter(ctx) != nil {
			s.mu.Lock()
			s.leftovers = append(s.leftovers, left) // for who ends them all
			s.mu.Unlock()
			return
		}
		_, err := s.call(ctx, l, opUnsubscribe, left.job, unsubscribeBody(left.subscription))
		s.judge(ctx, left.mailbox, err) // whatever it says of the mailbox: the subscription ends by itself
	}
}

// nextLeftover returns the next one that the server may still have.
func (s *Source) nextLeftover(now time.Time) (leftover, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.leftovers) > 0 {
		left := s.leftovers[0]
		if s.leftovers = s.leftovers[1:]; now.Sub(left.since) < subscriptionLife {
			return left, true
		}
	}
	s.leftovers = nil
	return leftover{}, false
}

// unsubscribeAll ends the subscriptions, as many as there is time for, so that
// they do not count against the mailboxes' limits until the server finds out that
// nobody streams them.
func (s *Source) unsubscribeAll(ctx context.Context) {
	if s.gate.closed(time.Now()) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, endBudget)
	defer cancel()
	all := s.allSubscriptions()
	var enders sync.WaitGroup
	for range min(endAtOnce, s.config.requests(), len(all)) {
		enders.Go(func() { // ends with all, or with ctx
			l := newConnection(&s.config)
			defer l.close()
			for left := range all {
				if ctx.Err() != nil {
					return
				}
				_, _ = s.call(ctx, l, opUnsubscribe, left.job, unsubscribeBody(left.subscription)) // otherwise it ends by itself
			}
		})
	}
	enders.Wait()
}

// allSubscriptions returns the subscriptions of all mailboxes and those that are
// left over, in a closed channel. Nothing changes them any more.
func (s *Source) allSubscriptions() <-chan leftover {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(chan leftover, len(s.boxes)+len(s.leftovers))
	for _, b := range s.boxes {
		if b.group != nil && b.subscription != "" {
			all <- b.leftover(time.Now())
		}
	}
	for _, left := range s.leftovers {
		all <- left
	}
	s.leftovers = nil
	close(all)
	return all
}
