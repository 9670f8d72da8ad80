package relay

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"badgerelay/apns"
)

// Of the numbers that say when an app is misconfigured, and whom its
// organizations' refusals are believed, the first two are the design's: twenty
// devices that die at once, without one that lives, are no accident.
const (
	misconfiguredRefused = 20 // distinct devices
	misconfiguredShare   = 20 // of so many refused at most one is accepted: 5 %
	trustedShare         = 4  // accepted for each refused, before refusals count
)

// tally counts distinct devices of one app, of one organization or of all.
type tally struct {
	accepted int // in the app's present generation, of late
	refused  int // and not accepted since
}

func (t tally) plus(o tally) tally { return tally{t.accepted + o.accepted, t.refused + o.refused} }

func (t tally) minus(o tally) tally { return tally{t.accepted - o.accepted, t.refused - o.refused} }

// trusted reports whether refusals may end subscriptions: APNs knows the app's
// devices well enough.
func (t tally) trusted() bool { return t.accepted >= trustedShare*t.refused && t.accepted > 0 }

// misconfigured reports whether APNs refuses the devices of an app as a whole,
// by the tallies of its organizations, and of devices that nobody knows whose
// they are. One organization's tokens alone, bogus
// ones that it imported, say nothing about an app that others use as well: of
// their devices some have to be refused too, and not next to none.
func misconfigured(organizations []tally, unknown tally) bool {
	all, worst := unknown, tally{}
	active := 0
	for _, t := range organizations {
		all = all.plus(t)
		if t.refused > worst.refused {
			worst = t
		}
		if t != (tally{}) {
			active++
		}
	}
	if all.refused < misconfiguredRefused || all.accepted*misconfiguredShare >= all.refused {
		return false
	}
	others := all.minus(worst)
	return active == 1 || others.refused > 0 && !others.trusted()
}

// Health says how APNs treats the devices of an app.
type Health struct {
	Misconfigured bool // it refuses nearly all of them
	Since         time.Time
	Accepted      int // distinct devices in the app's present generation, within a day or two
	// Quarantined are those known in memory that it refused in this generation and
	// has not accepted since; a 410 does not count.
	Quarantined int
	// RemovalsPutOff counts subscriptions that were not removed because too many
	// of the app's were within an hour.
	RemovalsPutOff uint64
}

const (
	healthTurn   = 10 * time.Second
	healthPeriod = 24 * time.Hour // in which a device that is accepted again is no other
	latelyPeriod = 30 * time.Minute
)

// health is how APNs treats an app's devices.
type health struct {
	generation   atomic.Uint64
	generationAt atomic.Int64 // since when, on the relay's clock; 0: since the start
	since        atomic.Int64 // the present period's start

	mu            sync.Mutex // a leaf; guards what follows
	byOrg         map[OrganizationID]*orgStats
	lately        lately
	misconfigured bool
	changedAt     time.Time
	known         Generation // for which most is known
	most, noted   int        // accepted devices: that some relay has noted, and this one
	budgetTold    time.Time
}

// orgStats is what is known of one organization's devices of an app: how many distinct
// ones APNs accepted in the present period and in the one before, and refused in
// this generation and has not accepted since.
type orgStats struct {
	org                               OrganizationID
	accepted, acceptedBefore, refused atomic.Int64
}

// statsOf returns the organization's.
func (a *appState) statsOf(org OrganizationID) *orgStats {
	a.health.mu.Lock()
	defer a.health.mu.Unlock()
	l := a.health.byOrg[org]
	if l == nil {
		l = &orgStats{org: org}
		a.health.byOrg[org] = l
	}
	return l
}

// forget drops what is known of an organization that is gone.
func (h *health) forget(org OrganizationID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.byOrg, org)
}

// note counts answers.
func (h *health) note(results []apns.Result, now int64) {
	var t tally
	sentAway := 0
	for i := range results {
		switch err := results[i].Err; err.Verdict() {
		case apns.VerdictAccepted:
			t.accepted++
		case apns.VerdictDeviceRefused:
			if !results[i].Tag.(*device).token.Impossible() {
				t.refused++
			}
		case apns.VerdictResend:
			if err.DevicesRefused() {
				sentAway++
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lately.note(t, sentAway, now)
}

// lately counts answers of the last half hour to hour.
type lately struct {
	began       int64
	now, before answers
}

type answers struct {
	tally
	sentAway int // pushes whose connection APNs ended because it refuses devices
}

func (l *lately) note(t tally, sentAway int, now int64) {
	if passed := now - l.began; passed >= int64(latelyPeriod) {
		l.before = answers{}
		if passed < int64(2*latelyPeriod) {
			l.before = l.now
		}
		l.began, l.now = now, answers{}
	}
	l.now.tally = l.now.plus(t)
	l.now.sentAway += sentAway
}

// failing reports whether APNs refuses next to everybody at present, whatever it
// did before: it may be another one that answers.
func (l *lately) failing() bool {
	t := l.now.plus(l.before.tally)
	return t.refused >= misconfiguredRefused && t.accepted*misconfiguredShare < t.refused
}

// allSentAway reports whether APNs answers no push at present and ends
// connections because it refuses devices.
func (l *lately) allSentAway() bool {
	return l.now.sentAway+l.before.sentAway >= misconfiguredRefused && l.now.plus(l.before.tally) == (tally{})
}

// tally returns the distinct devices of the organization. The period
// before counts too while the present one is young.
func (l *orgStats) tally() tally {
	return tally{
		accepted: int(max(l.accepted.Load(), l.acceptedBefore.Load())),
		refused:  int(max(l.refused.Load(), 0)),
	}
}

// generation returns what the app pushes with at present.
func (d *appState) generation() Generation { return Generation(d.health.generation.Load()) }

// counts reports whether a quarantined device counts as refused: a 410 says
// nothing about the app.
func (d *appState) counts(q *Quarantine) bool {
	return q.Generation == d.generation() && !isGone(q.Reason)
}

// sentInGeneration reports whether a push went out with what the app pushes with
// at present, and not about when that changed.
func (d *appState) sentInGeneration(res *apns.Result) bool {
	const moment = time.Second
	at := d.health.generationAt.Load()
	return at == 0 || res.WrittenAt.After(d.relay.start.Add(time.Duration(at)+moment))
}

// doubtful reports whether nothing may be removed by what APNs says of the app's
// devices.
func (d *appState) doubtful() bool {
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	return d.health.lately.failing() || d.health.misconfigured
}

// tallies returns those of the app's organizations.
func (d *appState) tallies() []tally {
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	all := make([]tally, 0, len(d.health.byOrg))
	for _, l := range d.health.byOrg {
		all = append(all, l.tally())
	}
	return all
}

// checkHealth looks whether the app is misconfigured, and tells the operator when
// that changes.
func (d *appState) checkHealth() {
	tallies := d.tallies()
	var all tally
	for _, t := range tallies {
		all = all.plus(t)
	}
	h := &d.health
	h.mu.Lock()
	unnoted := tally{accepted: max(0, h.most-all.accepted)} // by relays that were, and others that are
	is := h.lately.allSentAway() || h.known == d.generation() && misconfigured(tallies, unnoted)
	changed := is != h.misconfigured
	if changed {
		h.misconfigured, h.changedAt = is, time.Now()
	}
	h.mu.Unlock()
	switch {
	case changed && is:
		d.relay.logger.Error("app is misconfigured: APNs refuses nearly all of its devices. No subscription is removed; "+
			"counts are held until its environment, topic and credential are put right", "app", d.name,
			"refused", all.refused, "accepted", all.accepted)
	case changed:
		d.relay.logger.Info("app is not misconfigured any more", "app", d.name, "refused", all.refused, "accepted", all.accepted)
	}
}

// tellBudget reports whether it was not told within an hour that the budget of
// removals is used up.
func (h *health) tellBudget(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Sub(h.budgetTold) < budgetHour {
		return false
	}
	h.budgetTold = now
	return true
}

// Misconfigured reports whether APNs refuses nearly all of an app's devices, as
// Health does, without counting them. An app that has not been added is not.
func (r *Relay) Misconfigured(app string) bool {
	d := r.apps.named(app)
	if d == nil {
		return false
	}
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	return d.health.misconfigured
}

// Health returns how APNs treats an app's devices.
func (r *Relay) Health(app string) Health { return r.apps.named(app).currentHealth() }

func (d *appState) currentHealth() Health {
	var all tally
	for _, t := range d.tallies() {
		all = all.plus(t)
	}
	s := Health{Accepted: all.accepted, Quarantined: all.refused}
	d.health.mu.Lock()
	s.Misconfigured, s.Accepted = d.health.misconfigured, max(s.Accepted, d.health.most)
	if s.Misconfigured {
		s.Since = d.health.changedAt
	}
	d.health.mu.Unlock()
	r := d.relay
	r.refusals.mu.Lock()
	s.RemovalsPutOff = r.refusals.overBudget[d.name]
	r.refusals.mu.Unlock()
	return s
}

// runHealth looks after the apps until ctx is done.
func (r *Relay) runHealth(ctx context.Context) {
	turn := time.NewTicker(healthTurn)
	defer turn.Stop()
	for {
		for _, d := range r.apps.all() {
			d.noteAccepted(ctx)
			d.checkHealth()
		}
		select {
		case <-turn.C:
		case <-ctx.Done():
			return
		}
	}
}

// noteAccepted begins a new period where it is time to, and has the registry
// remember how many devices APNs accepts, so that a relay that was just started
// knows that the app has been well.
func (d *appState) noteAccepted(ctx context.Context) {
	h, now := &d.health, d.relay.now()
	if since := h.since.Load(); now-since >= int64(healthPeriod) && since != 0 {
		d.beginPeriod(now)
	}
	h.since.CompareAndSwap(0, now)
	all := 0
	for _, t := range d.tallies() {
		all += t.accepted
	}
	generation := d.generation()
	h.mu.Lock()
	known := h.known == generation
	due := !known || all > h.most && all > h.noted+h.noted/16
	h.mu.Unlock()
	if !due {
		return
	}
	most, err := d.relay.subscriptions.NoteAccepted(ctx, d.name, generation, all)
	if err != nil {
		d.relay.registryFailures.Add(1) // the next turn tries again
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known, h.most, h.noted = generation, most, all
}

// beginPeriod counts acceptances anew.
func (d *appState) beginPeriod(now int64) {
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	d.health.since.Store(now)
	for _, l := range d.health.byOrg {
		l.acceptedBefore.Store(l.accepted.Swap(0))
	}
}

// SetGeneration says what the app pushes with: at the start, and after the pool
// was given something else. Quarantines of another generation are lifted, and
// the counts of those mailboxes asked for anew.
func (r *Relay) SetGeneration(app string, generation Generation) {
	d := r.apps.named(app)
	old := Generation(d.health.generation.Swap(uint64(generation)))
	if old == generation || old == 0 {
		return
	}
	now := r.now()
	d.health.generationAt.Store(now)
	d.stall.end(now)
	d.health.since.Store(now)
	d.health.mu.Lock()
	d.health.lately = lately{}
	for _, l := range d.health.byOrg {
		l.accepted.Store(0)
		l.acceptedBefore.Store(0)
		l.refused.Store(0)
	}
	d.health.most, d.health.noted = 0, 0
	d.health.mu.Unlock()
	lifted := r.quarantinedMailboxes(d)
	r.logger.Info("app pushes with another environment, topic or credential", "app", app, "quarantines_lifted", len(lifted))
	d.checkHealth()
	r.recount(lifted)
}

// quarantinedMailboxes returns the mailboxes in memory with a device of the app
// that was refused in whatever generation.
func (r *Relay) quarantinedMailboxes(d *appState) (keys []MailboxKey) {
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		for _, m := range sh.active {
			if slices.ContainsFunc(m.targets, func(l *target) bool { return l.device.app == d && l.remembersRefusal() }) {
				keys = append(keys, m.key)
			}
		}
		for _, rec := range sh.compact {
			if rec.quarantined(d, r.apps.all()) {
				key := rec.key()
				key.Mailbox = strings.Clone(key.Mailbox)
				keys = append(keys, key)
			}
		}
		sh.mu.Unlock()
	}
	return keys
}

// remembersRefusal reports whether the target has a quarantine, in force or not.
func (l *target) remembersRefusal() bool {
	l.device.mu.Lock()
	defer l.device.mu.Unlock()
	return l.quarantine != nil
}
