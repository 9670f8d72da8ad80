package relay

import (
	"context"
	"slices"
	"sync"
	"time"

	"badgerelay/apns"
	"badgerelay/relay/lookup"
)

// refusals brings what APNs said of devices to the registry, which decides what
// becomes of their subscriptions, and remembers it for every relay.
type refusals struct {
	mu      sync.Mutex
	refused []targetRefusal
	lifted  []Subscriber
	added   signal

	removed    uint64            // subscriptions ended
	overBudget map[string]uint64 // by app: removals put off
}

// targetRefusal is a refusal of a target's device. Until it is judged the target is
// refused, and what is outstanding on it waits.
type targetRefusal struct {
	target  *target
	refusal Refusal
}

// add asks for refusals to be judged, and quarantines to be forgotten because
// APNs accepted the device.
func (q *refusals) add(refused []targetRefusal, lifted []Subscriber) {
	q.mu.Lock()
	q.refused = append(q.refused, refused...)
	q.lifted = append(q.lifted, lifted...)
	q.mu.Unlock()
	q.added.fill()
}

// run brings them to the registry until ctx is done.
func (q *refusals) run(ctx context.Context, r *Relay) {
	for {
		q.mu.Lock()
		refused, lifted := q.refused, q.lifted
		q.refused, q.lifted = nil, nil
		q.mu.Unlock()
		if len(lifted) > 0 {
			_ = r.outage("forget refusals").Retry(ctx, func() error { // it only fails when ctx is done
				return r.subscriptions.ForgetRefusals(ctx, lifted)
			})
		}
		if len(refused) > 0 {
			q.judge(ctx, r, refused)
		}
		if len(lifted)+len(refused) > 0 {
			continue
		}
		select {
		case <-q.added:
		case <-ctx.Done():
			return
		}
	}
}

// judge has the registry judge a batch of refusals and acts on it.
func (q *refusals) judge(ctx context.Context, r *Relay, batch []targetRefusal) {
	asked := make([]Refusal, len(batch))
	for i := range batch {
		asked[i] = batch[i].refusal
		app := batch[i].target.device.app
		asked[i].Trusted = batch[i].target.stats.counts(app.generation()).trusted()
		asked[i].Doubtful = app.doubtful()
	}
	var judged []Judgement
	err := r.outage("judge refused devices").Retry(ctx, func() (err error) {
		judged, err = r.subscriptions.Refuse(ctx, asked)
		return err
	})
	if err != nil {
		return // ctx is done; the next push to these devices is refused again
	}
	var acts actions
	var changed []MailboxKey
	for i := range batch {
		t, j := batch[i].target, judged[i]
		if j.OverBudget {
			q.putOff(r, t.device.app.name)
		}
		if j.Verdict == RefusalRemoves {
			q.mu.Lock()
			q.removed++
			q.mu.Unlock()
		}
		if j.Verdict != RefusalHolds {
			changed = append(changed, asked[i].Key)
		}
		r.applyJudgement(t, asked[i].Reason, j, &acts)
	}
	r.checkHealth()
	r.apply(&acts)
	// What a look-up read before is out of date: a removed subscription must not
	// come back by it, and one that was registered anew is read.
	r.SubscriptionsChanged(changed)
}

// putOff counts a removal that goes beyond the app's budget, and tells the
// first within an hour.
func (q *refusals) putOff(r *Relay, app string) {
	q.mu.Lock()
	q.overBudget[app]++
	q.mu.Unlock()
	if a := r.apps.named(app); a != nil && a.health.tellBudget(time.Now()) {
		r.logger.Error("many devices of an app are dead: no more subscriptions are removed within the hour", "app", app)
	}
}

// applyJudgement acts on what the registry made of the refusal of a target's device.
func (r *Relay) applyJudgement(t *target, reason apns.Reason, j Judgement, acts *actions) {
	m := t.mailbox
	m.shard.mu.Lock()
	defer m.shard.mu.Unlock()
	if !m.has(t) {
		return // the device has left meanwhile
	}
	t.judged(j, r)
	if j.Verdict == RefusalSpares {
		return // the mailbox is read anew, and what is outstanding goes on from there
	}
	if j.Verdict == RefusalRemoves {
		m.targets = slices.DeleteFunc(m.targets, func(other *target) bool { return other == t })
	}
	if m.pending {
		m.refuse(t, RefusedSubscription{Reason: reason, Removed: j.Verdict == RefusalRemoves})
	}
	t.setOutstanding(false)
	if j.Verdict == RefusalRemoves {
		r.devices.release(t, r)
	}
	r.settleIfDone(m, acts)
}

// judged notes that the refusal is decided. A device that APNs may call gone by
// mistake does not wait for its mailbox's next event.
func (t *target) judged(j Judgement, r *Relay) {
	d := t.device
	d.mu.Lock()
	defer d.mu.Unlock()
	t.refused = false
	t.setQuarantine(j.Quarantine, r)
	if j.Verdict == RefusalHolds {
		t.awaitProbe(r)
	}
}

// awaitProbe has a device that is called gone wait for its probe. The caller
// holds the device's lock.
func (t *target) awaitProbe(r *Relay) {
	d := t.device
	if q := t.quarantine; q != nil && isGone(q.Reason) && d.stage == stageIdle && !d.wanted() {
		d.stage = stageWaiting
		r.waits.Set(d, q.probeAt)
	}
}

// awaitProbes does so for each device of a mailbox. The caller holds the shard's
// lock.
func (m *mailbox) awaitProbes(r *Relay) {
	for _, t := range m.targets {
		t.device.mu.Lock()
		t.awaitProbe(r)
		t.device.mu.Unlock()
	}
}

// addProbes adds the targets of a device whose probe is due. The caller
// holds the device's lock.
func (d *device) addProbes(now int64, acts *actions) {
	for _, t := range d.targets {
		if q := t.quarantine; q != nil && isGone(q.Reason) && now >= q.probeAt {
			acts.probes = append(acts.probes, t)
		}
	}
}

// try tries a device that was called gone, with its mailbox's newest count. Where
// another relay may have a newer one, its agent is asked; where none is connected,
// nothing may be pushed: the organization may have been disabled.
func (r *Relay) try(t *target, acts *actions) {
	m := t.mailbox
	m.shard.mu.Lock()
	defer m.shard.mu.Unlock()
	if m.subs.BeginLoad() { // the device waits on when it is known to be there
		acts.lookups = append(acts.lookups, m)
	}
	if !m.has(t) || m.subs != lookup.Known || t.outstanding || r.draining.Load() {
		return
	}
	if r.maxInFlight > 0 || !r.hasStream(m.key.Organization) {
		acts.recounts = append(acts.recounts, m.key)
		return
	}
	if m.event != 0 { // else no count is known
		r.setDesired(t, r.now(), acts)
	}
}

// setQuarantine notes what is remembered of refusals of the target's device, and
// counts it. The caller holds the device's lock.
func (t *target) setQuarantine(q *Quarantine, r *Relay) {
	had := t.quarantine
	if had != nil {
		t.stats.noteRefused(had.Quarantine, -1)
	}
	t.quarantine = nil
	if q == nil {
		return
	}
	t.quarantine = &targetQuarantine{q, r.probeAt(q)}
	if had != nil && had.RefusedAt.Equal(q.RefusedAt) {
		t.quarantine.probeAt = min(t.quarantine.probeAt, had.probeAt)
	}
	t.stats.noteRefused(q, 1)
}

// probeAt returns on the relay's clock when a quarantined device may be tried. The
// registry's clock may be far ahead of it, where one of them was set.
func (r *Relay) probeAt(q *Quarantine) int64 {
	next := q.NextProbe()
	return min(int64(next.Sub(r.start)), r.now()+int64(next.Sub(q.RefusedAt)))
}

// quarantined reports whether no event may go to the target's device yet. The
// caller holds the device's lock.
func (t *target) quarantined(now int64) bool {
	q := t.quarantine
	return q != nil && now < q.probeAt && q.InForce(t.device.app.generation(), time.UnixMilli(t.registeredAt))
}

// isRefused reports whether it is being decided what follows from a refusal.
func (t *target) isRefused() bool {
	t.device.mu.Lock()
	defer t.device.mu.Unlock()
	return t.refused
}

// refusedFor returns APNs' reason for the quarantine.
func (t *target) refusedFor() apns.Reason {
	t.device.mu.Lock()
	defer t.device.mu.Unlock()
	if t.quarantine == nil {
		return "" // APNs has accepted the device this very moment
	}
	return t.quarantine.Reason
}
