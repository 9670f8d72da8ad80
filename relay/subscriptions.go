package relay

import (
	"context"
	"slices"

	"badgerelay/apns"
	"badgerelay/relay/lookup"
)

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
	r.lookedUp.Add(uint64(len(batch)))
	var fx effects
	now := r.now()
	for i, m := range batch {
		r.learn(m, found[i], now, &fx)
	}
	r.apply(&fx)
	return nil
}

// outage returns what tells of failures of one operation of the registry.
func (r *Relay) outage(operation string) *lookup.Outage {
	return &lookup.Outage{Operation: operation, Logger: r.logger, Random: r.random, Count: &r.registryFailures}
}

// learn takes over what the registry says of a mailbox's subscriptions.
func (r *Relay) learn(m *mailbox, subs []Subscription, now int64, fx *effects) {
	m.shard.mu.Lock()
	defer m.shard.mu.Unlock()
	if m.subs.Loaded() {
		fx.lookups = append(fx.lookups, m)
		return
	}
	had := len(m.links)
	r.relink(m, subs)
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
			m = r.activate(sh, hash, key)
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
	// A new device may be on another organization's mailbox too: its sum waits for this count.
	needed := m.pending || m.counted || m.sharesDevices()
	if m.subs.Invalidate(needed) {
		fx.lookups = append(fx.lookups, m)
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
