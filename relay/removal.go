package relay

import (
	"context"
	"sync"
	"time"

	"badgerelay/apns"
)

// removals ends subscriptions in the registry that APNs refused for good.
type removals struct {
	mu      sync.Mutex
	waiting []Removal
	covered map[removalKey]time.Time // of those not yet ended: the time of APNs' refusal
	added   chan struct{}            // one slot
	ended   uint64
}

type removalKey struct {
	mailbox MailboxKey
	app     string
	device  apns.DeviceToken
}

// add asks for subscriptions to be ended.
func (q *removals) add(list []Removal) {
	q.mu.Lock()
	for _, rm := range list {
		q.covered[removalKey{rm.Key, rm.App, rm.Device}] = rm.Timestamp
	}
	q.waiting = append(q.waiting, list...)
	q.mu.Unlock()
	notify(q.added)
}

// covers reports whether a subscription that the registry still has is about
// to be ended, so that no look-up brings it back in between.
func (q *removals) covers(key MailboxKey, s Subscription) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	at, ok := q.covered[removalKey{key, s.App, s.Device}]
	return ok && (at.IsZero() || s.RegisteredAt.Before(at))
}

// run ends subscriptions until ctx is done.
func (q *removals) run(ctx context.Context, r *Relay) {
	for {
		q.mu.Lock()
		batch := q.waiting
		q.waiting = nil
		q.mu.Unlock()
		if len(batch) > 0 {
			q.end(ctx, r, batch)
			continue
		}
		select {
		case <-q.added:
		case <-ctx.Done():
			return
		}
	}
}

// end ends a batch of subscriptions. Those that registered again since stay;
// the registry's change feed has told the relay of them.
func (q *removals) end(ctx context.Context, r *Relay, batch []Removal) {
	ended, err := retry(ctx, r, "remove subscriptions", func() ([]bool, error) {
		return r.subscriptions.Remove(ctx, batch)
	})
	if err != nil {
		return // ctx is done; the next push to these devices is refused again
	}
	q.mu.Lock()
	for i, rm := range batch {
		delete(q.covered, removalKey{rm.Key, rm.App, rm.Device})
		if ended[i] {
			q.ended++
		}
	}
	q.mu.Unlock()
	keys := make([]MailboxKey, len(batch))
	for i, rm := range batch {
		keys[i] = rm.Key
	}
	r.SubscriptionsChanged(keys)
}
