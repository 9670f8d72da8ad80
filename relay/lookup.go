package relay

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"badgerelay/apns"
)

// lookupBatch is how many mailboxes one read of the registry asks for at most.
const lookupBatch = 512

// Backoff while the registry fails.
const (
	firstRegistryPause = 100 * time.Millisecond
	lastRegistryPause  = 5 * time.Second
)

// lookups gathers mailboxes whose subscriptions have to be read.
type lookups struct {
	queue fairQueue[*mailbox]
	done  atomic.Uint64 // mailboxes read
}

// add asks for mailboxes, which are in state subscriptionsLoading.
func (q *lookups) add(mailboxes []*mailbox) {
	for len(mailboxes) > 0 { // those of one organization together, as a batch has them
		org, n := mailboxes[0].key.Organization, 1
		for n < len(mailboxes) && mailboxes[n].key.Organization == org {
			n++
		}
		q.queue.add(org, mailboxes[:n]...)
		mailboxes = mailboxes[n:]
	}
}

// run reads subscriptions until ctx is done.
//
// While the registry fails, events wait. A batch that fails is asked for again
// in halves, down to single mailboxes, each of which goes to the end of its
// organization's: what the registry can't read of one mailbox holds no other up. Only
// when one mailbox after the other fails is there a pause.
func (q *lookups) run(ctx context.Context, r *Relay) {
	batch, size := make([]*mailbox, 0, lookupBatch), lookupBatch
	alone := 0 // failures of single mailboxes in a row
	failing := outage{relay: r, operation: "look up subscriptions"}
	for {
		batch = q.queue.next(batch[:0], size)
		if len(batch) == 0 {
			select {
			case <-q.queue.added:
				continue
			case <-ctx.Done():
				return
			}
		}
		err := r.lookUp(ctx, batch)
		switch {
		case err == nil:
			failing.end()
			alone, size = 0, min(2*size, lookupBatch)
		case ctx.Err() != nil:
			return
		default:
			failing.note(err)
			q.add(batch)
			if len(batch) == 1 {
				alone++
			}
			if alone > 1 && failing.pause(ctx) != nil {
				return
			}
			size = max(1, len(batch)/2)
		}
		clear(batch)
	}
}

// lookUp reads the subscriptions of some mailboxes and lets their events go on.
func (r *Relay) lookUp(ctx context.Context, batch []*mailbox) error {
	keys := make([]MailboxKey, len(batch))
	for i, m := range batch {
		keys[i] = m.key
	}
	found, err := r.subscriptions.Lookup(ctx, keys)
	if err != nil {
		return err
	}
	r.lookups.done.Add(uint64(len(batch)))
	var fx effects
	now := r.now()
	for i, m := range batch {
		r.learn(m, found[i], now, &fx)
	}
	r.apply(&fx)
	return nil
}

// outage is a run of failures of one operation of the registry. One goroutine
// uses it.
type outage struct {
	relay     *Relay
	operation string
	failures  int
	pauses    int
}

// note counts a failure, and logs the first.
func (o *outage) note(err error) {
	o.relay.registryFailures.Add(1)
	if o.failures == 0 {
		o.relay.logger.Error("registry failed", "operation", o.operation, "error", err)
	}
	o.failures++
}

// end notes a success.
func (o *outage) end() {
	if o.failures > 0 {
		o.relay.logger.Info("registry is back", "operation", o.operation, "failures", o.failures)
	}
	o.failures, o.pauses = 0, 0
}

// pause waits, longer each time until end; ctx's error ends it.
func (o *outage) pause(ctx context.Context) error {
	wait := min(firstRegistryPause<<min(o.pauses, 10), lastRegistryPause)
	o.pauses++
	timer := time.NewTimer(wait/2 + time.Duration(o.relay.random(int64(wait/2))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// retry calls f until it succeeds or ctx is done.
func retry[T any](ctx context.Context, r *Relay, operation string, f func() (T, error)) (T, error) {
	failing := outage{relay: r, operation: operation}
	for {
		v, err := f()
		if err == nil {
			failing.end()
			return v, nil
		}
		if ctx.Err() != nil {
			return v, ctx.Err()
		}
		failing.note(err)
		if err := failing.pause(ctx); err != nil {
			return v, err
		}
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
	case len(m.links) == 0 && had == 0 && m.refused == nil:
		r.settleAs(m, OutcomeNoSubscription, fx)
	case m.windowOpen && !r.draining.Load():
		m.hold()
	default:
		r.fanOut(m, now, fx)
	}
	m.awaitTrials(r)
}

// relink makes the mailbox's links those of subs, keeping the ones that stay.
func (r *Relay) relink(m *mailbox, subs []Subscription) {
	old := m.links
	m.room(len(subs))
	for _, s := range subs {
		app := r.apps.named(s.App)
		if app == nil {
			continue // of an app that is not configured any more
		}
		l := takeLink(old, app, s.Device)
		if l == nil {
			l = m.newLink(app.lane(m.key.Organization))
			r.devices.attach(l, deviceKey{app, s.Device}, s.Shared)
		} else if s.Shared {
			l.device.mu.Lock()
			l.device.share(m.key.Organization)
			l.device.mu.Unlock()
		}
		l.device.registered(l, s, r)
		m.links = append(m.links, l)
	}
	for _, l := range old {
		if l == nil {
			continue
		}
		if l.isRefused() { // the registry may have ended it a moment ago: judged tells so
			m.links = append(m.links, l)
			continue
		}
		if l.owed {
			l.owed = false
			m.owed--
		}
		r.devices.release(l, r)
	}
}

// takeLink finds a device's link and takes it out of links.
func takeLink(links []*link, app *appState, token apns.DeviceToken) *link {
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
		m := sh.awake[key]
		if m == nil {
			m = r.rouse(sh, hash, key)
		}
		if m != nil {
			m.outdate(&fx)
		}
		sh.mu.Unlock()
	}
	r.apply(&fx)
	if r.devices.shared.Load() > 0 {
		notify(r.sums.hint) // a sum may have lost a part
	}
}

// outdate notes that the mailbox's subscriptions changed. The caller holds the
// shard's lock.
func (m *mailbox) outdate(fx *effects) {
	switch m.subs {
	case subscriptionsLoading:
		m.subs = subscriptionsChanged
	case subscriptionsKnown:
		m.subs = subscriptionsUnknown
		// A new device may be on another organization's mailbox too: its sum waits for this count.
		if m.pending || m.counted || m.sharesDevices() {
			m.subs = subscriptionsLoading
			fx.lookups = append(fx.lookups, m)
		}
	}
}

// sharesDevices reports whether the mailbox is one of several of a device, whose sum
// may change with its subscriptions. The caller holds the shard's lock.
func (m *mailbox) sharesDevices() bool {
	return slices.ContainsFunc(m.links, func(l *link) bool {
		l.device.mu.Lock()
		defer l.device.mu.Unlock()
		return l.device.shared != nil
	})
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
		for _, m := range sh.awake {
			if m.key.Organization != org {
				continue
			}
			m.outdate(&fx)
			if m.idle() {
				r.forget(m)
			}
		}
		for hash, rec := range sh.resting {
			if rec.key().Organization == org {
				r.forgetRecord(sh, hash, rec)
			}
		}
		sh.mu.Unlock()
		r.apply(&fx)
	}
	for _, a := range r.apps.all() {
		a.health.forget(org)
	}
	r.SumsChanged()
}
