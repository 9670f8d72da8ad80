package relay

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"badgerelay/apns"
)

// lookupBatch is how many mailboxes one read of the registry asks for.
const lookupBatch = 512

// Backoff while the registry fails.
const (
	firstRegistryPause = 100 * time.Millisecond
	lastRegistryPause  = 5 * time.Second
)

// lookups gathers mailboxes whose subscriptions have to be read.
type lookups struct {
	mu      sync.Mutex
	waiting []*mailbox
	added   chan struct{} // one slot

	done atomic.Uint64 // mailboxes read
}

// add asks for mailboxes, which are in state subscriptionsLoading.
func (q *lookups) add(mailboxes []*mailbox) {
	q.mu.Lock()
	q.waiting = append(q.waiting, mailboxes...)
	q.mu.Unlock()
	notify(q.added)
}

// next swaps what waits for spare.
func (q *lookups) next(spare []*mailbox) []*mailbox {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting := q.waiting
	q.waiting = spare[:0]
	return waiting
}

// run reads subscriptions until ctx is done.
func (q *lookups) run(ctx context.Context, r *Relay) {
	var spare []*mailbox
	for {
		batch := q.next(spare)
		for start := 0; start < len(batch); start += lookupBatch {
			r.lookUp(ctx, batch[start:min(start+lookupBatch, len(batch))])
		}
		clear(batch)
		spare = batch
		if len(batch) > 0 {
			continue
		}
		select {
		case <-q.added:
		case <-ctx.Done():
			return
		}
	}
}

// lookUp reads the subscriptions of some mailboxes and lets their events go
// on. It tries until it succeeds or ctx is done: the events wait.
func (r *Relay) lookUp(ctx context.Context, batch []*mailbox) {
	keys := make([]MailboxKey, len(batch))
	for i, m := range batch {
		keys[i] = m.key
	}
	found, err := retry(ctx, r, "look up subscriptions", func() ([][]Subscription, error) {
		return r.subscriptions.Lookup(ctx, keys)
	})
	if err != nil {
		return // ctx is done
	}
	r.lookups.done.Add(uint64(len(batch)))
	var fx effects
	now := r.now()
	for i, m := range batch {
		r.learn(m, found[i], now, &fx)
	}
	r.apply(&fx)
}

// retry calls f until it succeeds or ctx is done, and logs the first failure
// and the end of a run of them.
func retry[T any](ctx context.Context, r *Relay, what string, f func() (T, error)) (T, error) {
	pause := firstRegistryPause
	for failures := 0; ; failures++ {
		v, err := f()
		if err == nil {
			if failures > 0 {
				r.logger.Info("registry is back", "operation", what, "failures", failures)
			}
			return v, nil
		}
		if ctx.Err() != nil {
			return v, ctx.Err()
		}
		r.registryFailures.Add(1)
		if failures == 0 {
			r.logger.Error("registry failed", "operation", what, "error", err)
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return v, ctx.Err()
		}
		pause = min(2*pause, lastRegistryPause)
	}
}

// learn takes over what the registry says of a mailbox's subscriptions.
func (r *Relay) learn(m *mailbox, subs []Subscription, now int64, fx *effects) {
	m.shard.mu.Lock()
	defer m.shard.mu.Unlock()
	if m.subs == subscriptionsChanged {
		m.subs = subscriptionsLoading
		fx.lookups = append(fx.lookups, m)
		return
	}
	had := len(m.links)
	r.relink(m, subs)
	m.subs = subscriptionsKnown
	switch {
	case !m.pending:
	case len(m.links) == 0 && had == 0:
		r.settleAs(m, OutcomeNoSubscription, fx)
	case m.windowOpen && !r.draining.Load():
		m.hold()
	default:
		r.fanOut(m, now, fx)
	}
}

// relink makes the mailbox's links those of subs, keeping the ones that stay.
func (r *Relay) relink(m *mailbox, subs []Subscription) {
	old := m.links
	m.links = make([]*link, 0, len(subs))
	for _, s := range subs {
		app := r.apps[s.App]
		if app == nil || r.removals.covers(m.key, s) {
			continue // of an app that is not configured any more, or refused by APNs
		}
		l := takeLink(old, app, s.Device)
		if l == nil {
			l = &link{mailbox: m, lane: app.lane(m.key.Organization)}
			r.devices.attach(l, deviceKey{app, s.Device})
		}
		l.device.registered(l, s.RegisteredAt, r)
		m.links = append(m.links, l)
	}
	for _, l := range old {
		if l == nil {
			continue
		}
		if l.owed {
			l.owed = false
			m.owed--
		}
		r.devices.release(l)
	}
}

// takeLink finds a device's link and takes it out of links.
func takeLink(links []*link, app *dispatcher, token apns.DeviceToken) *link {
	for i, l := range links {
		if l != nil && l.device.app == app && l.device.token == token {
			links[i] = nil
			return l
		}
	}
	return nil
}

// SubscriptionsChanged tells the relay that the subscriptions of these
// mailboxes are not what they were. When it returns, no event submitted from
// then on counts before they have been read anew.
func (r *Relay) SubscriptionsChanged(keys []MailboxKey) {
	var fx effects
	for _, key := range keys {
		sh, hash := r.shardOf(key.Organization, key.Mailbox)
		sh.mu.Lock()
		if sh.news != nil {
			sh.news.changed[hash] = struct{}{}
		}
		m := sh.mailboxes[key]
		if m == nil {
			m = r.rouse(sh, hash, key)
		}
		if m != nil {
			m.outdate(&fx)
		}
		sh.mu.Unlock()
	}
	r.apply(&fx)
}

// outdate notes that the mailbox's subscriptions changed. The caller holds the
// shard's lock.
func (m *mailbox) outdate(fx *effects) {
	switch m.subs {
	case subscriptionsLoading:
		m.subs = subscriptionsChanged
	case subscriptionsKnown:
		m.subs = subscriptionsUnknown
		if m.pending {
			m.subs = subscriptionsLoading
			fx.lookups = append(fx.lookups, m)
		}
	}
}

// OrganizationGone forgets what an organization left behind: its subscriptions
// are read anew, which finds none.
func (r *Relay) OrganizationGone(org OrganizationID) {
	for i := range r.shards {
		sh := &r.shards[i]
		var fx effects
		sh.mu.Lock()
		if sh.news != nil {
			sh.news.gone[org] = struct{}{}
		}
		for key, m := range sh.mailboxes {
			if key.Organization != org {
				continue
			}
			m.outdate(&fx)
			if m.idle() {
				r.forget(m)
			}
		}
		for hash, rec := range sh.resting {
			if rec.key().Organization == org {
				r.forgetRecord(sh, hash)
			}
		}
		sh.mu.Unlock()
		r.apply(&fx)
	}
}
