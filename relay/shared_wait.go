package relay

import (
	"slices"
	"time"
)

// What a device on several mailboxes waits for, and until when.

const (
	// partTimeout is how long the counts of an organization wait for those that
	// nobody has reported of its other mailboxes, after these have come.
	partTimeout = time.Minute
	// fallTimeout is how long a sum that an organization's parts left waits for those
	// that came: a device that moves does not show 0 for a moment.
	fallTimeout = 2 * time.Second
)

// Awaited reports whether its organization's counts wait for the part's.
func (p *Part) Awaited(now time.Time) bool { return p.awaitedFor(partTimeout, now) }

// awaitedFor is Awaited with another timeout.
func (p *Part) awaitedFor(timeout time.Duration, now time.Time) bool {
	return !p.reported() && !p.Disabled && now.Sub(p.JoinedAt) < timeout
}

// incomplete reports whether the organization's counts wait for some part of its own. No
// other organization's do, so that a stranger holds no badge back. The first of them that
// waits has all go on in time, whatever part has come since.
func (d *SharedDevice) incomplete(org OrganizationID, now time.Time) bool {
	if since, waits := d.waitingSince(org); waits && now.Sub(since) >= partTimeout {
		return false
	}
	return slices.ContainsFunc(d.Parts, func(p Part) bool { return p.Key.Organization == org && p.Awaited(now) })
}

// waitingSince returns when the first of an organization's counts began to wait that do.
func (d *SharedDevice) waitingSince(org OrganizationID) (since time.Time, waits bool) {
	for i := range d.Parts {
		if p := &d.Parts[i]; p.Key.Organization == org && p.waits() && !p.Disabled && (!waits || p.StoredAt.Before(since)) {
			since, waits = p.StoredAt, true
		}
	}
	return since, waits
}

// Ready reports whether the sum may be pushed. It waits where every organization that
// changed it has a part that came less than fallTimeout ago and is not reported yet: its
// count is about to take the place of that of a part which left.
func (d *SharedDevice) Ready(now time.Time) bool {
	moving := map[OrganizationID]bool{} // of those that changed the sum
	for i := range d.Parts {
		if p := &d.Parts[i]; p.Sequence > d.Answered() {
			moving[p.Key.Organization] = moving[p.Key.Organization] || p.awaitedFor(fallTimeout, now)
		}
	}
	for _, moves := range moving {
		if !moves {
			return true
		}
	}
	return len(moving) == 0
}

// DueAt returns when a relay should look at the device though nobody has changed it: the
// sum is to be pushed once more, or counts have waited for long enough. Zero: never.
func (d *SharedDevice) DueAt() time.Time {
	due := d.PushAgainAt
	for _, org := range d.organizations(func(p *Part) bool { return p.waits() && !p.Disabled }) {
		var last time.Time
		for i := range d.Parts {
			if p := &d.Parts[i]; p.Key.Organization == org && !p.reported() && !p.Disabled && p.JoinedAt.After(last) {
				last = p.JoinedAt
			}
		}
		if since, _ := d.waitingSince(org); since.Before(last) {
			last = since
		}
		if end := last.Add(partTimeout); due.IsZero() || end.Before(due) {
			due = end
		}
	}
	return due
}

// Again reports whether DueAt has come.
func (d *SharedDevice) Again(now time.Time) bool {
	due := d.DueAt()
	return !due.IsZero() && !due.After(now)
}

// Due reports whether a relay should look at the device: it waits for a push, which
// is the relay's. free says of its pusher what ExchangeTerms.PusherFree does.
func (d *SharedDevice) Due(relay string, lifetime time.Duration, free bool, now time.Time) bool {
	if d.Pusher != relay && d.Pusher != "" && lifetime > 0 && !free {
		return false
	}
	return d.Outstanding() || d.Again(now)
}
