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

// unsubscribeAll ends the subscriptions, as many as there is time for, so that
// they do not count against the mailboxes' limits until the server finds out that
// nobody streams them.
func (s *Source) unsubscribeAll(ctx context.Context) {
	if s.gate.closed(time.Now()) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, endBudget)
	defer cancel()
	all := s.subscribedBoxes()
	var enders sync.WaitGroup
	for range min(endAtOnce, s.config.requests(), len(all)) {
		enders.Go(func() { // ends with all, or with ctx
			l := newLane(&s.config)
			defer l.close()
			for b := range all {
				if ctx.Err() != nil {
					return
				}
				j := job{mailbox: b.mailbox, url: b.group.url, anchor: or(b.group.anchor, b.mailbox), cookies: b.group.cookies}
				_, _ = s.call(ctx, l, opUnsubscribe, j, unsubscribeBody(b.subscription)) // otherwise it ends by itself
			}
		})
	}
	enders.Wait()
}

// subscribedBoxes returns the mailboxes that have a subscription, in a closed
// channel. Nothing changes them any more.
func (s *Source) subscribedBoxes() <-chan *box {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(chan *box, len(s.boxes))
	for _, b := range s.boxes {
		if b.group != nil && b.subscription != "" {
			all <- b
		}
	}
	close(all)
	return all
}
