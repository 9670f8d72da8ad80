package relay

import (
	"context"
	"slices"
	"sync/atomic"

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
	var acts actions
	now := r.now()
	quarantined := false
	for i, m := range batch {
		r.applySubscriptions(m, found[i], now, &acts)
		quarantined = quarantined || slices.ContainsFunc(found[i], func(s Subscription) bool { return s.Quarantine != nil })
	}
	if quarantined { // a relay that was just started may know by them that an app is misconfigured
		r.checkHealth()
	}
	r.apply(&acts)
	return nil
}

// outage returns what tells of failures of one operation of the registry.
func (r *Relay) outage(operation string) *lookup.Outage {
	return &lookup.Outage{Operation: operation, Logger: r.logger, Random: r.random, Count: &r.registryFailures}
}

// applySubscriptions takes over what the registry says of a mailbox's subscriptions.
func (r *Relay) applySubscriptions(m *mailbox, subs []Subscription, now int64, acts *actions) {
	m.shard.mu.Lock()
	defer m.shard.mu.Unlock()
	if m.subs.EndLoad() {
		acts.lookups = append(acts.lookups, m)
		return
	}
	had := len(m.targets)
	r.reconcileTargets(m, subs)
	switch {
	case !m.pending:
	case len(m.targets) == 0 && had == 0 && m.refused == nil:
		r.settleAs(m, OutcomeNoSubscription, acts)
	case m.windowOpen && !r.draining.Load():
		m.hold()
	default:
		r.fanOut(m, now, acts)
	}
	m.awaitProbes(r)
}

// reconcileTargets makes the mailbox's targets those of subs, keeping the ones that stay.
func (r *Relay) reconcileTargets(m *mailbox, subs []Subscription) {
	old := m.targets
	had := indexTargets(old)
	m.room(len(subs))
	for _, s := range subs {
		app := r.apps.named(s.App)
		if app == nil {
			continue // of an app that is not configured any more
		}
		t := had.take(deviceKey{app, s.Device})
		if t == nil {
			t = m.newTarget(app.statsOf(m.key.Organization))
			r.devices.attach(t, deviceKey{app, s.Device}, s.Shared)
		} else if s.Shared {
			t.device.mu.Lock()
			t.device.share(m.key.Organization)
			t.device.mu.Unlock()
		}
		t.device.registered(t, s, r)
		m.targets = append(m.targets, t)
	}
	for _, t := range old {
		if t == nil {
			continue
		}
		if t.isRefused() { // the registry may have ended it a moment ago: applyJudgement tells so
			m.targets = append(m.targets, t)
			continue
		}
		t.setOutstanding(false)
		r.devices.release(t, r)
	}
}

// targetIndex finds the targets that a mailbox had by their device.
type targetIndex struct {
	targets  []*target // nil: taken
	byDevice map[deviceKey]int
}

// fewTargets is how many are searched faster than found in a map.
const fewTargets = 8

func indexTargets(targets []*target) targetIndex {
	x := targetIndex{targets: targets}
	if len(targets) <= fewTargets {
		return x
	}
	x.byDevice = make(map[deviceKey]int, len(targets))
	for i, t := range targets {
		x.byDevice[deviceKey{t.device.app, t.device.token}] = i
	}
	return x
}

// take returns a device's target, once; nil: there is none.
func (x *targetIndex) take(key deviceKey) *target {
	at := func(i int) *target {
		t := x.targets[i]
		x.targets[i] = nil
		return t
	}
	if x.byDevice != nil {
		if i, found := x.byDevice[key]; found {
			return at(i)
		}
		return nil
	}
	for i, t := range x.targets {
		if t != nil && t.device.app == key.app && t.device.token == key.token {
			return at(i)
		}
	}
	return nil
}

// SubscriptionsChanged tells the relay that the subscriptions of these
// mailboxes are not what they were. When it returns, no event submitted from
// then on counts before they have been read anew.
func (r *Relay) SubscriptionsChanged(keys []MailboxKey) {
	var acts actions
	for _, key := range keys {
		sh, hash := r.shardOf(key.Organization, key.Mailbox)
		sh.mu.Lock()
		if sh.dirty != nil {
			sh.dirty.changed[hash] = struct{}{}
		}
		m := sh.active.find(hash, key)
		if m == nil {
			m = r.activate(sh, hash, key)
		}
		if m != nil {
			m.invalidate(&acts)
		}
		sh.mu.Unlock()
	}
	r.apply(&acts)
	if r.devices.sharedCount.Load() > 0 {
		r.exchanger.hint.fill() // a sum may have lost a part
	}
}

// invalidate notes that the mailbox's subscriptions changed. The caller holds the
// shard's lock.
func (m *mailbox) invalidate(acts *actions) {
	// A device that comes or goes may be on another organization's mailbox too: its sum waits
	// for this count, or falls by it. Nobody is to see by the look-up whether it is.
	needed := m.pending || m.counted || len(m.targets) > 0
	if m.subs.Invalidate(needed) {
		acts.lookups = append(acts.lookups, m)
	}
}

// OrganizationBack has an organization's mailboxes be read anew that nobody is known to
// be subscribed to: they may have been read while the organization was removed.
func (r *Relay) OrganizationBack(org OrganizationID) {
	for i := range r.shards {
		sh := &r.shards[i]
		var acts actions
		sh.mu.Lock()
		for hash, e := range sh.compact.all() {
			if e.organization() == org && !e.hasDevices() {
				r.activate(sh, hash, e.key())
			}
		}
		for m := range sh.active.all() {
			if m.key.Organization == org && len(m.targets) == 0 {
				m.invalidate(&acts)
			}
		}
		sh.mu.Unlock()
		r.apply(&acts)
	}
}

// rereadMailboxes has every mailbox with subscriptions of an app read again; what it has at
// the start is read by the warm-up.
func (r *Relay) rereadMailboxes(a *appState) {
	if r.running.Load() {
		a.readMailboxes.Store(true)
		r.readMailboxes.fill()
	}
}

// runReadMailboxes does what rereadMailboxes asks for, until ctx is done.
func (r *Relay) runReadMailboxes(ctx context.Context) {
	asked := func(a *appState) *atomic.Bool { return &a.readMailboxes }
	r.readForApps(ctx, "read mailboxes of a new app", r.readMailboxes, asked, func(apps map[string]bool) error {
		return r.subscriptions.Scan(ctx, func(batch []Entry) error {
			var keys []MailboxKey
			for i := range batch {
				if apps[batch[i].Subscription.App] {
					keys = append(keys, batch[i].Key)
				}
			}
			if len(keys) > 0 {
				r.SubscriptionsChanged(keys)
			}
			return nil
		})
	})
}

// readForApps reads the registry for the apps that have asked for it, each time when one
// does, until ctx is done.
func (r *Relay) readForApps(ctx context.Context, operation string, ask signal, asked func(*appState) *atomic.Bool, read func(apps map[string]bool) error) {
	failing := r.outage(operation)
	for {
		select {
		case <-ask:
		case <-ctx.Done():
			return
		}
		apps := map[string]bool{}
		for _, a := range r.apps.all() {
			if asked(a).Swap(false) {
				apps[a.name] = true
			}
		}
		if len(apps) > 0 {
			_ = failing.Retry(ctx, func() error { return read(apps) }) // it only fails when ctx is done
		}
	}
}

// OrganizationGone forgets what an organization left behind: its subscriptions
// are read anew, which finds none.
func (r *Relay) OrganizationGone(org OrganizationID) {
	for i := range r.shards {
		sh := &r.shards[i]
		var acts actions
		sh.mu.Lock()
		if sh.dirty != nil {
			sh.dirty.gone[org] = struct{}{}
		}
		for m := range sh.active.all() {
			if m.key.Organization != org {
				continue
			}
			m.invalidate(&acts)
			if m.idle() {
				r.forget(m)
			}
		}
		for hash, e := range sh.compact.all() {
			if e.organization() == org {
				r.forgetCompact(sh, hash, e)
			}
		}
		sh.mu.Unlock()
		r.apply(&acts)
	}
	for _, a := range r.apps.all() {
		a.health.forget(org)
	}
	r.SumsChanged()
}
