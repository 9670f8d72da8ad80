package relay

import (
	"time"

	"badgerelay/apns"
)

// Generation names what decides which devices APNs knows of an app: a hash of
// address, environment, topic and credential. What was refused in one
// generation says nothing about another. 0: not known.
type Generation uint64

// The numbers of the quarantine are ours, save where noted.
const (
	// A refused device is tried again once a day, and one that APNs calls gone
	// since before its registration, where APNs may be behind, sooner.
	refusedProbe    = 24 * time.Hour
	firstGoneProbe  = 20 * time.Minute
	secondGoneProbe = 40 * time.Minute

	goneRefusals    = 3                // 410s that remove, whatever time they name
	goneSettled     = 10 * time.Minute // after a registration APNs may still say 410 of what was before
	refusedRefusals = 2                // other refusals that remove, after removedAfter
	removedAfter    = 24*time.Hour - probeSlack
	removedAnyway   = 30 * 24 * time.Hour

	// probeSlack is how far the clock by which a probe is due may be ahead of the
	// one by which it is judged.
	probeSlack = time.Minute
	// refusalSpacing: refusals that come sooner are one, as of pushes that several
	// relays had under way.
	refusalSpacing = 10 * time.Minute
)

// Quarantine is what is remembered of a subscription whose device APNs refused.
// While it is in force events of the mailbox don't go to the device, save the
// one that tries it again.
type Quarantine struct {
	Generation Generation
	Reason     apns.Reason // the last one
	Since      time.Time   // the first refusal in this generation
	RefusedAt  time.Time   // the last one that counts
	Refusals   int         // that count, in this generation
	Registered time.Time   // the registration that was refused; a later one lifts the quarantine
}

// InForce reports whether the quarantine holds for a subscription that was last
// registered at some time, of an app in this generation. A nil Quarantine is
// in force for nobody.
func (q *Quarantine) InForce(generation Generation, registered time.Time) bool {
	return q != nil && q.Generation == generation && !registered.After(q.Registered)
}

// NextProbe returns from when on a push may try the device again.
func (q *Quarantine) NextProbe() time.Time {
	if !isGone(q.Reason) || q.Refusals > goneRefusals {
		return q.RefusedAt.Add(refusedProbe)
	}
	if q.Refusals == 1 {
		return q.RefusedAt.Add(firstGoneProbe)
	}
	return q.RefusedAt.Add(secondGoneProbe)
}

// isGone tells the reasons of a 410 from those of a 400.
func isGone(r apns.Reason) bool {
	return r == apns.ReasonUnregistered || r == apns.ReasonExpiredToken
}

// Refusal is APNs' answer that a device is not, or no longer, one of the app's.
type Refusal struct {
	Key    MailboxKey
	App    string
	Device apns.DeviceToken
	Reason apns.Reason

	// GoneSince is since when APNs says the device is gone (410). Zero: not said.
	GoneSince time.Time
	// SentAt is when the push was written.
	SentAt time.Time
	// Registered is the registration that the relay knew of then. The refusal
	// holds for that and those before; a later one is spared.
	Registered time.Time
	// Generation is the app's.
	Generation Generation

	// Accepted: APNs has accepted this device in this generation, so that the
	// configuration can't be what it refuses.
	Accepted bool
	// Trusted: APNs accepts at least four times as many of the organization's
	// devices as it refuses.
	Trusted bool
	// Doubtful: the app looks misconfigured. Nothing is removed.
	Doubtful bool
}

// Verdict says what follows from a Refusal.
type Verdict uint8

// The verdicts.
const (
	// RefusalSpares: the subscription is registered anew, or gone already.
	RefusalSpares Verdict = iota
	// RefusalHolds: it is quarantined.
	RefusalHolds
	// RefusalRemoves: it ends.
	RefusalRemoves
)

// Judgement is what the registry made of a Refusal.
type Judgement struct {
	Verdict Verdict
	// Quarantine is what is remembered from now on; nil: nothing.
	Quarantine *Quarantine
	// OverBudget: it would have been removed, but too many of the app's were
	// within an hour.
	OverBudget bool
}

// Judge decides on a refusal of a subscription that was last registered at
// some time, with what is remembered of refusals before, or nil. It changes
// neither. Whether a removal is within the app's Budget is left to the
// caller, who keeps the Quarantine where it is not.
func (f *Refusal) Judge(had *Quarantine, registered, now time.Time) Judgement {
	if registered.After(f.Registered) {
		return Judgement{Verdict: RefusalSpares, Quarantine: had}
	}
	next := Quarantine{Generation: f.Generation, Since: now}
	if had != nil && had.Generation == f.Generation {
		next = *had
	}
	if isGone(f.Reason) != isGone(next.Reason) {
		next.Refusals = 0 // the two kinds are not added up
	}
	if next.Refusals == 0 || now.Sub(next.RefusedAt) >= refusalSpacing {
		next.Refusals++
		next.RefusedAt = now
	}
	next.Reason, next.Registered = f.Reason, registered
	j := Judgement{Verdict: RefusalHolds, Quarantine: &next}
	if f.Device.Impossible() || !f.Doubtful && f.ends(&next, now) {
		j.Verdict = RefusalRemoves // an operator's probe, with its impossible token, leaves no subscription behind
	}
	return j
}

// ends reports whether a refusal, the last one of q, ends the subscription.
func (f *Refusal) ends(q *Quarantine, now time.Time) bool {
	if isGone(f.Reason) {
		return f.GoneSince.After(q.Registered) ||
			q.Refusals >= goneRefusals && f.SentAt.Sub(q.Registered) >= goneSettled
	}
	age := now.Sub(q.Since)
	return f.Accepted || age >= removedAnyway || f.Trusted && age >= removedAfter && q.Refusals >= refusedRefusals
}

// Budget bounds how many of an app's subscriptions end in an hour, by answers
// of APNs and by lifetime. It belongs to the app, not to a relay. The zero
// value has not been used.
type Budget struct {
	Allowed int       // that may end before there is a pause of budgetHour
	Used    int       // that have
	LastAt  time.Time // the last one
}

const (
	budgetHour    = time.Hour
	budgetPercent = 5
	// budgetFloor lets the dead devices of an app with few devices leave. Ours: it
	// is what an app with 100 devices has.
	budgetFloor = 5
)

// Renewed reports whether a new hour begins: the budget has not been used for
// one. So no hour holds more than one budget, wherever it begins.
func (b *Budget) Renewed(now time.Time) bool {
	return b.Allowed == 0 || now.Sub(b.LastAt) >= budgetHour
}

// Renew begins a new hour, for an app with this many live subscriptions.
func (b *Budget) Renew(live int) {
	*b = Budget{Allowed: max(budgetFloor, (live*budgetPercent+99)/100), LastAt: b.LastAt}
}

// Limit puts a removal off that goes beyond the budget.
func (b *Budget) Limit(f *Refusal, j Judgement, now time.Time) Judgement {
	if j.Verdict == RefusalRemoves && !f.Device.Impossible() && b.Take(1, now) == 0 {
		j.Verdict, j.OverBudget = RefusalHolds, true
	}
	return j
}

// Take takes n from the budget, or what is left of it, and returns how many
// that is.
func (b *Budget) Take(n int, now time.Time) int {
	if b.LastAt.Sub(now) >= budgetHour {
		b.LastAt = now // the clock was set back: the hour begins now
	}
	n = min(n, b.Allowed-b.Used)
	if n > 0 {
		b.Used += n
		b.LastAt = now
	}
	return n
}
