package relay

import (
	"context"
	"maps"
	"slices"
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

// deviceCounts are distinct devices of one app, of one organization or of all.
type deviceCounts struct {
	accepted int // in the app's present generation, of late
	refused  int // and not accepted since
}

func (c deviceCounts) plus(o deviceCounts) deviceCounts {
	return deviceCounts{c.accepted + o.accepted, c.refused + o.refused}
}

func (c deviceCounts) minus(o deviceCounts) deviceCounts {
	return deviceCounts{c.accepted - o.accepted, c.refused - o.refused}
}

// trusted reports whether refusals may end subscriptions: APNs knows the app's
// devices well enough.
func (c deviceCounts) trusted() bool { return c.accepted >= trustedShare*c.refused && c.accepted > 0 }

// misconfigured reports whether APNs refuses the devices of an app as a whole,
// by the counts of its organizations, and of devices that nobody knows whose
// they are. One organization's tokens alone, bogus
// ones that it imported, say nothing about an app that others use as well: of
// their devices some have to be refused too, and not next to none.
func misconfigured(organizations []deviceCounts, unknown deviceCounts) bool {
	all, worst := unknown, deviceCounts{}
	active := 0
	for _, c := range organizations {
		all = all.plus(c)
		if c.refused > worst.refused {
			worst = c
		}
		if c != (deviceCounts{}) {
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
	Accepted      int // distinct devices of each organization in the app's present generation, within a day or two
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
// ones APNs accepted in the present period and in the one before, and refused and has
// not accepted since. A shared device may count once for each of its mailboxes that was
// compact while APNs accepted another one's count.
type orgStats struct {
	org                                    OrganizationID
	acceptedDevices, acceptedDevicesBefore atomic.Int64

	mu      sync.Mutex         // a leaf; guards refused
	refused map[Generation]int // in each generation: the app may go back to one
}

// noteRefused counts a device that is quarantined, or with -1 is not any more. A 410 says
// nothing about the app.
func (s *orgStats) noteRefused(q *Quarantine, n int) {
	if isGone(q.Reason) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == nil {
		s.refused = map[Generation]int{}
	}
	if s.refused[q.Generation] += n; s.refused[q.Generation] == 0 {
		delete(s.refused, q.Generation)
	}
}

// statsOf returns the organization's.
func (a *appState) statsOf(org OrganizationID) *orgStats {
	a.health.mu.Lock()
	defer a.health.mu.Unlock()
	s := a.health.byOrg[org]
	if s == nil {
		s = &orgStats{org: org}
		a.health.byOrg[org] = s
	}
	return s
}

// forget drops what is known of an organization that is gone.
func (h *health) forget(org OrganizationID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.byOrg, org)
}

// note counts answers.
func (h *health) note(results []apns.Result, now int64) {
	var c deviceCounts
	sentAway := 0
	for i := range results {
		switch err := results[i].Err; err.Verdict() {
		case apns.VerdictAccepted:
			c.accepted++
		case apns.VerdictDeviceRefused:
			if !results[i].Tag.(*device).token.Impossible() {
				c.refused++
			}
		case apns.VerdictResend:
			if err.DevicesRefused() {
				sentAway++
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lately.note(c, sentAway, now)
}

// lately counts answers of the last half hour to hour.
type lately struct {
	began       int64
	now, before answers
}

type answers struct {
	deviceCounts
	sentAway int // pushes whose connection APNs ended because it refuses devices
}

func (l *lately) note(c deviceCounts, sentAway int, now int64) {
	if passed := now - l.began; passed >= int64(latelyPeriod) {
		l.before = answers{}
		if passed < int64(2*latelyPeriod) {
			l.before = l.now
		}
		l.began, l.now = now, answers{}
	}
	l.now.deviceCounts = l.now.plus(c)
	l.now.sentAway += sentAway
}

// failing reports whether APNs refuses next to everybody at present, whatever it
// did before: it may be another one that answers.
func (l *lately) failing() bool {
	c := l.now.plus(l.before.deviceCounts)
	return c.refused >= misconfiguredRefused && c.accepted*misconfiguredShare < c.refused
}

// allSentAway reports whether APNs answers no push at present and ends
// connections because it refuses devices.
func (l *lately) allSentAway() bool {
	return l.now.sentAway+l.before.sentAway >= misconfiguredRefused && l.now.plus(l.before.deviceCounts) == (deviceCounts{})
}

// counts returns the distinct devices of the organization in a generation. The period
// before counts too while the present one is young.
func (s *orgStats) counts(generation Generation) deviceCounts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return deviceCounts{
		accepted: int(max(s.acceptedDevices.Load(), s.acceptedDevicesBefore.Load())),
		refused:  s.refused[generation],
	}
}

// generation returns what the app pushes with at present.
func (a *appState) generation() Generation { return Generation(a.health.generation.Load()) }

// sentInGeneration reports whether a push went out with what the app pushes with
// at present, and not about when that changed.
func (a *appState) sentInGeneration(res *apns.Result) bool {
	const moment = time.Second
	at := a.health.generationAt.Load()
	return at == 0 || res.WrittenAt.After(a.relay.wall(at).Add(moment))
}

// doubtful reports whether nothing may be removed by what APNs says of the app's
// devices.
func (a *appState) doubtful() bool {
	a.health.mu.Lock()
	defer a.health.mu.Unlock()
	return a.health.lately.failing() || a.health.misconfigured
}

// countsByOrganization returns those of the app's organizations.
func (a *appState) countsByOrganization() []deviceCounts {
	a.health.mu.Lock()
	stats := slices.Collect(maps.Values(a.health.byOrg))
	a.health.mu.Unlock()
	all := make([]deviceCounts, len(stats))
	for i, s := range stats {
		all[i] = s.counts(a.generation())
	}
	return all
}

// checkHealth looks which apps are misconfigured. What is known of their devices has
// changed; the events concerned end after it, so that who hears of them can ask why.
func (r *Relay) checkHealth() {
	for _, a := range r.apps.all() {
		a.checkHealth()
	}
}

// checkHealth looks whether the app is misconfigured, and tells the operator when
// that changes.
func (a *appState) checkHealth() {
	counts := a.countsByOrganization()
	var all deviceCounts
	for _, c := range counts {
		all = all.plus(c)
	}
	h := &a.health
	h.mu.Lock()
	unnoted := deviceCounts{accepted: max(0, h.most-all.accepted)} // by relays that were, and others that are
	is := h.lately.allSentAway() || h.known == a.generation() && misconfigured(counts, unnoted)
	changed := is != h.misconfigured
	if changed {
		h.misconfigured, h.changedAt = is, time.Now()
	}
	h.mu.Unlock()
	switch {
	case changed && is:
		a.relay.logger.Error("app is misconfigured: APNs refuses nearly all of its devices. No subscription is removed; "+
			"counts are held until its environment, topic and credential are put right", "app", a.name,
			"refused", all.refused, "accepted", all.accepted)
	case changed:
		a.relay.logger.Info("app is not misconfigured any more", "app", a.name, "refused", all.refused, "accepted", all.accepted)
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
	a := r.apps.named(app)
	if a == nil {
		return false
	}
	a.health.mu.Lock()
	defer a.health.mu.Unlock()
	return a.health.misconfigured
}

// Health returns how APNs treats the devices of an app that has been added.
func (r *Relay) Health(app string) Health { return r.apps.named(app).currentHealth() }

func (a *appState) currentHealth() Health {
	var all deviceCounts
	for _, c := range a.countsByOrganization() {
		all = all.plus(c)
	}
	s := Health{Accepted: all.accepted, Quarantined: all.refused}
	a.health.mu.Lock()
	s.Misconfigured, s.Accepted = a.health.misconfigured, max(s.Accepted, a.health.most)
	if s.Misconfigured {
		s.Since = a.health.changedAt
	}
	a.health.mu.Unlock()
	r := a.relay
	r.refusals.mu.Lock()
	s.RemovalsPutOff = r.refusals.overBudget[a.name]
	r.refusals.mu.Unlock()
	return s
}

// runHealth looks after the apps until ctx is done.
func (r *Relay) runHealth(ctx context.Context) {
	turn := time.NewTicker(healthTurn)
	defer turn.Stop()
	for {
		for _, a := range r.apps.all() {
			a.noteAccepted(ctx)
			a.checkHealth()
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
func (a *appState) noteAccepted(ctx context.Context) {
	h, now := &a.health, a.relay.now()
	if since := h.since.Load(); now-since >= int64(healthPeriod) && since != 0 {
		a.beginPeriod(now)
	}
	h.since.CompareAndSwap(0, now)
	all := 0
	for _, c := range a.countsByOrganization() {
		all += c.accepted
	}
	generation := a.generation()
	h.mu.Lock()
	known := h.known == generation
	due := !known || all > h.most && all > h.noted+h.noted/16
	h.mu.Unlock()
	if !due {
		return
	}
	most, err := a.relay.subscriptions.NoteAccepted(ctx, a.name, generation, all)
	if err != nil {
		a.relay.registryFailures.Add(1) // the next turn tries again
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known, h.most, h.noted = generation, most, all
}

// beginPeriod counts acceptances anew.
func (a *appState) beginPeriod(now int64) {
	a.health.mu.Lock()
	defer a.health.mu.Unlock()
	a.health.since.Store(now)
	for _, s := range a.health.byOrg {
		s.acceptedDevicesBefore.Store(s.acceptedDevices.Swap(0))
	}
}

// SetGeneration says what an app that has been added pushes with: at the start, and after
// the pool was given something else. Quarantines of another generation are lifted, and
// the counts of those mailboxes asked for anew.
func (r *Relay) SetGeneration(app string, generation Generation) {
	a := r.apps.named(app)
	old := Generation(a.health.generation.Swap(uint64(generation)))
	if old == generation || old == 0 {
		return
	}
	now := r.now()
	a.health.generationAt.Store(now)
	a.stall.end(now)
	a.health.since.Store(now)
	a.health.mu.Lock()
	a.health.lately = lately{}
	for _, s := range a.health.byOrg {
		s.acceptedDevices.Store(0)
		s.acceptedDevicesBefore.Store(0)
	}
	a.health.most, a.health.noted = 0, 0
	a.health.mu.Unlock()
	lifted := r.quarantinedMailboxes(a)
	r.logger.Info("app pushes with another environment, topic or credential", "app", app, "quarantines_lifted", len(lifted))
	a.checkHealth()
	r.recount(lifted)
}

// quarantinedMailboxes returns the mailboxes in memory with a device of the app
// that was refused in whatever generation.
func (r *Relay) quarantinedMailboxes(a *appState) (keys []MailboxKey) {
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		for m := range sh.active.all() {
			if slices.ContainsFunc(m.targets, func(t *target) bool { return t.device.app == a && t.remembersRefusal() }) {
				keys = append(keys, m.key)
			}
		}
		for _, e := range sh.compact.all() {
			if e.quarantined(a, r.apps.all()) {
				keys = append(keys, e.key())
			}
		}
		sh.mu.Unlock()
	}
	return keys
}

// remembersRefusal reports whether the target has a quarantine, in force or not.
func (t *target) remembersRefusal() bool {
	t.device.mu.Lock()
	defer t.device.mu.Unlock()
	return t.quarantine != nil
}
