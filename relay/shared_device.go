package relay

import (
	"cmp"
	"slices"
	"time"

	"badgerelay/apns"
)

// DeviceKey names a device of an app.
type DeviceKey struct {
	App    string
	Device apns.DeviceToken
}

// SharedDevice is a device on several mailboxes, as all relays know it. The zero
// value with a key is one that nobody knows of.
type SharedDevice struct {
	DeviceKey
	Shared      bool   // false: it is on one mailbox at most, and the relay that has it pushes
	Sequence    uint64 // grows with every change of the sum's parts
	Accepted    uint64 // the sequence whose sum APNs accepted last
	Refused     *SharedRefusal
	Summed      bool      // there was a sum, and APNs has not answered that nothing is left of it
	Pusher      string    // the instance of the one relay that pushes; empty: the next that can
	PushAgainAt time.Time // when the sum is pushed once more: what went before may have followed; zero: no need
	Parts       []Part    // by organization and mailbox
}

// SharedUpdate is what a relay knows of a device.
type SharedUpdate struct {
	DeviceKey
	Counts []ReceivedCount // of its mailboxes
	// OneOrganization: the app shows no sum across organizations, see LivePart.
	OneOrganization bool
	Sequence        uint64         // the last one that it knows of the device; 0: none
	Accepted        uint64         // the sequence whose sum APNs accepted; 0: none
	Refused         *SharedRefusal // what APNs answered last, if it refused a sum for good; nil: it did not
	// Yield: another relay shall push, because this one can't at present. It has no
	// push in flight, and begins none before the answer.
	Yield bool
}

// ReceivedCount is a mailbox's count, as an agent sent it.
type ReceivedCount struct {
	Key   MailboxKey
	Count uint32
	// ReceivedAt is when the relay received it, on the shared clock and not later
	// than it was. Zero: long ago.
	ReceivedAt time.Time
}

// SharedRefusal is APNs' answer that a sum will not reach a device.
type SharedRefusal struct {
	Sequence   uint64 // of the sum that was refused
	Reason     apns.Reason
	GoneSince  time.Time // since when APNs says that the device is gone; zero: not said
	SentAt     time.Time // when the push was written
	Generation Generation
	Dropped    bool // the push was refused, not the device
}

// ExchangeTerms are what Merge decides on. What is not said here is ExchangeRequest's.
type ExchangeTerms struct {
	Relay    string
	Now      time.Time // on the shared clock
	Lifetime time.Duration
	Stray    time.Duration
	ShownFor time.Duration
	Live     []LivePart // every subscription of the device
	// PusherFree: the pusher left, or has not been heard of for Lifetime. With
	// Lifetime 0 it is not looked at.
	PusherFree bool
	// PusherSilent: it has not been heard of, so what it had in flight is not known.
	PusherSilent bool
}

// Merge brings an update into the device. It is the whole of what relays agree
// on, without a database: who calls it holds the device for itself, and keeps
// what comes out, or forgets the device where it is not Shared then.
func (d *SharedDevice) Merge(u *SharedUpdate, t ExchangeTerms) {
	fresh, yield := !d.Shared, u.Yield && t.Lifetime > 0
	was := pushedBefore{outstanding: d.Outstanding(), pusher: d.Pusher}
	was.first = fresh || len(d.Parts) == 0 && !d.Summed // the registration may have made the row already
	if d.Behind(u) {
		d.overtake(u.Sequence)
	}
	if u.OneOrganization {
		t.Live = d.ofOneOrganization(t.Live)
	}
	d.reconcile(t)
	if fresh && len(d.Parts) < 2 {
		return
	}
	if fresh { // a relay that has not heard that it was not shared for a while still knows its last sequence
		d.Shared, d.Sequence = true, max(d.Sequence+1, u.Sequence+1, uint64(t.Now.UnixMilli()))
		d.Accepted = d.Sequence
	}
	shownSince := d.shownSince(t)
	for i := range u.Counts {
		d.store(&u.Counts[i], t)
	}
	d.includePending(t.Now, shownSince)
	if !yield {
		d.electPusher(t)
	}
	d.planPushAgain(was, t)
	if d.Pusher == t.Relay {
		d.takeAnswers(u)
	}
	if yield && d.Pusher == t.Relay {
		d.Pusher = ""
	}
	d.updateSummed()
	if !d.endSharing(t) {
		d.pushAgain(t.Now)
	}
}

// Behind reports whether a relay knows of exchanges that were lost, as by a failover to a
// standby that lacked them. Who calls Merge tells all relays of it, as when the device becomes
// shared: they bring what they remember.
func (d *SharedDevice) Behind(u *SharedUpdate) bool { return d.Shared && u.Sequence > d.Sequence }

// overtake has the sum pushed with a later sequence than any that a relay knows from lost
// exchanges: what APNs has accepted of those was another sum. Counts that came since then
// have such sequences too, and get the new one.
func (d *SharedDevice) overtake(known uint64) {
	answered := d.Answered()
	d.Sequence, d.Parts = known+1, slices.Clone(d.Parts) // who calls Merge compares with what was
	for i := range d.Parts {
		if p := &d.Parts[i]; p.Sequence > answered {
			p.Sequence = d.Sequence
		}
	}
}

// store takes a count over, unless another relay has stored a newer one. What is newer than
// the shared clock comes from before the clock was set, and orders nothing. What a relay that
// is alone brings is newer than what it or a process before it stored, whatever the clock says,
// if it knows when that came.
func (d *SharedDevice) store(c *ReceivedCount, t ExchangeTerms) {
	p := d.part(c.Key)
	if p == nil {
		return
	}
	if p.State != PartUnreported && c.ReceivedAt.Before(p.ReceivedAt) && !p.ReceivedAt.After(t.Now) &&
		(t.Lifetime > 0 || c.ReceivedAt.IsZero()) {
		if !p.reported() { // what is stored is newer than what a relay remembers
			p.wait(p.NewestCount, t.Now)
		}
		return
	}
	p.ReceivedAt = c.ReceivedAt
	if p.reported() && p.NewestCount == c.Count && (p.waits() || p.Disabled || !d.pushedAnew(p, t)) {
		return
	}
	shown := !p.hasCount() && !p.Disabled && d.incomplete(p.Key.Organization, t.Now) && d.wasShown(c, t)
	if p.wait(c.Count, t.Now); shown {
		p.State, p.Count = PartNewerWaits, c.Count // the sum goes on with it
	}
}

// wasShown reports whether the device had a mailbox's count to show before the parts came
// that its organization waits for now: what is pushed for others meanwhile has it in it.
func (d *SharedDevice) wasShown(c *ReceivedCount, t ExchangeTerms) bool {
	createdAt := func(key MailboxKey) time.Time {
		i := slices.IndexFunc(t.Live, func(l LivePart) bool { return l.Key == key })
		return t.Live[i].CreatedAt
	}
	own := createdAt(c.Key)
	for i := range d.Parts {
		p := &d.Parts[i]
		if p.Key == c.Key || p.Key.Organization != c.Key.Organization || !p.Awaited(t.Now) {
			continue
		}
		if !c.ReceivedAt.Before(p.JoinedAt) || !own.Before(createdAt(p.Key)) {
			return false
		}
	}
	return true
}

// pushedAnew reports whether a count that is stored has to be pushed all the same:
// long ago, before the device registered last, or without success.
func (d *SharedDevice) pushedAnew(p *Part, t ExchangeTerms) bool {
	stored := p.StoredAt.Truncate(time.Millisecond) // as registrations are kept
	registered := slices.ContainsFunc(t.Live, func(l LivePart) bool { return l.Key == p.Key && !l.RegisteredAt.Before(stored) })
	return registered || t.Now.Sub(p.StoredAt) >= t.ShownFor || d.refusal(p.Sequence) != nil
}

// shownSince returns since when, at least, the device has shown the sum; zero: what APNs
// accepted is no proof of it. It is asked before counts are stored.
func (d *SharedDevice) shownSince(t ExchangeTerms) (since time.Time) {
	for i := range d.Parts {
		if p := &d.Parts[i]; p.State == PartCurrent && p.StoredAt.After(since) {
			since = p.StoredAt
		}
	}
	registered := slices.ContainsFunc(t.Live, func(l LivePart) bool { return !l.RegisteredAt.Before(since.Truncate(time.Millisecond)) })
	if registered || d.Accepted < d.Sequence || t.Now.Sub(since) >= t.ShownFor {
		return time.Time{}
	}
	return since
}

// includePending brings those counts into the sum that wait for none any more. Where the
// device has shown the same sum, since shownSince, it is not pushed again.
func (d *SharedDevice) includePending(now, shownSince time.Time) {
	complete := d.organizations(func(p *Part) bool {
		return p.waits() && !p.Disabled && !d.incomplete(p.Key.Organization, now)
	})
	if len(complete) == 0 {
		return
	}
	d.Sequence++
	if !shownSince.IsZero() && d.sumsStay(complete) {
		d.Accepted, now = d.Sequence, shownSince
	}
	for i := range d.Parts {
		p := &d.Parts[i]
		if p.waits() && !p.Disabled && slices.Contains(complete, p.Key.Organization) {
			p.include(d.Sequence, now)
		}
	}
}

// sumsStay reports whether organizations' counts that wait change their mailboxes', and not
// the sum of any of them: whether their events have a push must not tell what another one's
// counts do. A count that is the same is to be pushed anew.
func (d *SharedDevice) sumsStay(orgs []OrganizationID) bool {
	change := map[OrganizationID]int64{}
	for i := range d.Parts {
		p := &d.Parts[i]
		if !p.waits() || p.Disabled || !slices.Contains(orgs, p.Key.Organization) {
			continue
		}
		if !p.hasCount() || p.Count == p.NewestCount {
			return false
		}
		change[p.Key.Organization] += int64(p.NewestCount) - int64(p.Count)
	}
	return !slices.ContainsFunc(orgs, func(o OrganizationID) bool { return change[o] != 0 })
}

// electPusher has the relay push if nobody else does, whether it has an agent of the device's
// mailboxes or not.
func (d *SharedDevice) electPusher(t ExchangeTerms) {
	if d.Pusher == "" || t.Lifetime == 0 || t.PusherFree {
		d.Pusher = t.Relay
	}
}

// takeAnswers takes over what APNs answered to the pusher.
func (d *SharedDevice) takeAnswers(u *SharedUpdate) {
	d.Accepted = max(d.Accepted, min(u.Accepted, d.Sequence))
	if r := u.Refused; r != nil && r.Sequence <= d.Sequence && (d.Refused == nil || d.Refused.Sequence < r.Sequence) {
		d.Refused = r
	}
}

// updateSummed notes whether the device shows a sum. Where it shows none, nothing is to fall.
func (d *SharedDevice) updateSummed() {
	disabled := d.allDisabled()
	if disabled || !d.Summed && !d.anyCount() {
		d.Accepted = d.Sequence
	}
	d.Summed = !disabled && (d.anyCount() || d.Summed && d.Outstanding())
}

// endSharing has a device that is on one mailbox go back to what it was, at once or when
// other relays have heard of that. It reports false if the device stays shared: it is on
// several mailboxes, or its sum is to be pushed before.
func (d *SharedDevice) endSharing(t ExchangeTerms) (ends bool) {
	stray := t.Lifetime == 0 && !d.PushAgainAt.IsZero() && len(d.Parts) > 0 // it is pushed once more before
	if len(d.Parts) > 1 || d.Outstanding() || stray {
		return false
	}
	switch {
	case t.Lifetime == 0 || len(d.Parts) == 0 || d.pushAgainDue(t.Now):
		d.Shared = false
	case d.PushAgainAt.IsZero():
		d.PushAgainAt = t.Now.Add(t.Lifetime) // other relays have heard of it by then
	}
	return true
}

// allDisabled reports whether all of the device's organizations are disabled. Then it keeps
// what it shows, as a device on one mailbox does.
func (d *SharedDevice) allDisabled() bool {
	return len(d.Parts) > 0 && !slices.ContainsFunc(d.Parts, func(p Part) bool { return !p.Disabled })
}

// anyCount reports whether some part has a Count, disabled or not.
func (d *SharedDevice) anyCount() bool {
	return slices.ContainsFunc(d.Parts, func(p Part) bool { return p.hasCount() })
}

// part returns the device's part; nil: it is not on that mailbox.
func (d *SharedDevice) part(key MailboxKey) *Part {
	i, found := slices.BinarySearchFunc(d.Parts, key, func(p Part, key MailboxKey) int { return compareKeys(p.Key, key) })
	if !found {
		return nil
	}
	return &d.Parts[i]
}

func compareKeys(a, b MailboxKey) int {
	return cmp.Or(cmp.Compare(a.Organization, b.Organization), cmp.Compare(a.Mailbox, b.Mailbox))
}

// Outstanding reports whether the present sum is still to be pushed.
func (d *SharedDevice) Outstanding() bool { return d.Sequence > d.Answered() }

// Answered returns the last sequence that APNs accepted or refused.
func (d *SharedDevice) Answered() uint64 {
	if d.Refused == nil {
		return d.Accepted
	}
	return max(d.Accepted, d.Refused.Sequence)
}

// Waiting returns the organizations with a count that APNs has not answered, or that is
// to come into the sum now.
func (d *SharedDevice) Waiting(now time.Time) []OrganizationID {
	again := d.Again(now)
	return d.organizations(func(p *Part) bool { return p.waits() && again || p.Sequence > d.Answered() })
}

// organizations returns those with a part of which fn is true.
func (d *SharedDevice) organizations(fn func(p *Part) bool) (orgs []OrganizationID) {
	for i := range d.Parts {
		p := &d.Parts[i]
		if fn(p) && !slices.Contains(orgs, p.Key.Organization) {
			orgs = append(orgs, p.Key.Organization)
		}
	}
	return orgs
}

// turns returns in whose turns of its app's queue the device waits: those of the
// organizations that changed the sum; where none did, of that which changed it last.
func (d *SharedDevice) turns() (orgs []OrganizationID, changed bool) {
	if orgs = d.organizations(func(p *Part) bool { return p.Sequence > d.Answered() }); len(orgs) > 0 {
		return orgs, true
	}
	var last Part
	for _, p := range d.Parts {
		if last.Key.Organization == 0 || p.Sequence > last.Sequence {
			last = p
		}
	}
	return []OrganizationID{last.Key.Organization}, false
}

// refusal returns how APNs refused the sums that held a count of this sequence;
// nil: it accepted one, or has not answered.
func (d *SharedDevice) refusal(sequence uint64) *SharedRefusal {
	if d.Refused == nil || sequence <= d.Accepted || sequence > d.Refused.Sequence {
		return nil
	}
	return d.Refused
}

// Delivered reports whether APNs accepted a sum with the part's newest count.
func (d *SharedDevice) Delivered(p *Part) bool {
	return p.State == PartCurrent && p.Sequence <= d.Accepted
}

// Own returns what an organization may know of the device: its own mailboxes, their
// counts, and which of these were delivered. There is nothing in it of the parts of
// others, not that there are any: with one part of its own, it is not Shared.
func (d *SharedDevice) Own(org OrganizationID) SharedDevice {
	own := SharedDevice{DeviceKey: d.DeviceKey, Accepted: 1}
	for _, p := range d.Parts {
		if p.Key.Organization != org {
			continue
		}
		if !p.reported() { // alone it would have been forgotten
			p.State, p.Count, p.NewestCount, p.ReceivedAt = PartUnreported, 0, 0, time.Time{}
		}
		delivered := d.Delivered(&p)
		if p.Sequence = 2; delivered { // how the device's sequence grows tells of others
			p.Sequence = 1
		}
		own.Parts = append(own.Parts, p)
	}
	own.Shared = len(own.Parts) > 1
	return own
}

// Sum returns the badge: the counts in it, up to the greatest badge.
func (d *SharedDevice) Sum() uint32 {
	sum := uint64(0)
	for i := range d.Parts {
		if p := &d.Parts[i]; p.hasCount() && !p.Disabled {
			sum += uint64(p.Count)
		}
	}
	return uint32(min(sum, apns.MaxBadge))
}
