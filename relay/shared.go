package relay

import (
	"cmp"
	"context"
	"slices"
	"time"

	"badgerelay/apns"
)

// DeviceKey names a device of an app.
type DeviceKey struct {
	App    string
	Device apns.DeviceToken
}

// Sums is where the relays that serve the same mailboxes agree on the badges of
// shared devices: those that are on several mailboxes, of one organization or of
// several, and show the sum of their counts. Exchange is called by one goroutine of the
// relay; SharedDevices by several, also at once. An error is retried with backoff.
type Sums interface {
	// SharedDevices calls fn with every shared device, in batches that are
	// SharedDevices' again when fn returns. It ends with fn's error.
	SharedDevices(ctx context.Context, fn func(batch []DeviceKey) error) error
	// Exchange brings what a relay knows of shared devices to the others, and says
	// what they know, in one transaction: SharedDevice.Exchange decides. A device that
	// is on several mailboxes and not yet shared is shared from then on. The answer
	// has the devices in the order of the question. Each device must be in it once: of
	// two updates of one the second is ignored.
	Exchange(ctx context.Context, x Exchange) (ExchangeResult, error)
}

// Exchange is what a relay brings.
type Exchange struct {
	Relay   string // its instance; never empty
	Devices []SharedUpdate

	// Lifetime is how long after a relay's last exchange a push that it handed
	// out may still reach a device. 0: there is no other relay.
	Lifetime time.Duration
	// Stray is for how long from now a push of the process before a relay that is
	// alone may still reach a device. 0: there was none, or there are other relays.
	Stray time.Duration
	// ShownFor is how long an accepted count is not pushed again.
	ShownFor time.Duration

	// Due asks for devices that wait for this relay's push, or for any relay's, up
	// to so many and in a fixed order. After is the Next of the answer that this one
	// continues; empty: from the beginning.
	Due   int
	After string
	// Leave says that the relay hands out no more: others need not wait.
	Leave bool
}

// ExchangeResult is what a relay learns.
type ExchangeResult struct {
	Now     time.Time // on the clock that all relays share, during the exchange
	Devices []SharedDevice
	Due     []DueDevice
	Next    string // there may be more; empty: that was all
}

// DueDevice is a device that waits for a push.
type DueDevice struct {
	DeviceKey
	Sequence uint64
	Ours     bool // the relay that asks is its pusher

	// Organizations are those with a count that APNs has not answered; empty: nobody
	// waits, as where the sum is pushed once more.
	Organizations []OrganizationID
}

// SharedUpdate is what a relay knows of a device.
type SharedUpdate struct {
	DeviceKey
	Counts []ReceivedCount // of its mailboxes
	// OneOrganization: the app shows no sum across organizations, see LivePart.
	OneOrganization bool
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

// Part is a mailbox of a shared device.
type Part struct {
	Key      MailboxKey
	Disabled bool      // it counts nothing: its organization is disabled, or another one's token
	JoinedAt time.Time // since when it is a part

	// OtherOrganization: it is disabled because the device shows another organization's counts
	// alone. Not kept.
	OtherOrganization bool

	// Quarantined: something is remembered of refusals of the device with it. Its
	// counts are not pushed, and are a part all the same. Not kept.
	Quarantined bool

	Known      bool // some relay has stored a count
	Count      uint32
	ReceivedAt time.Time // of the newest count; orders counts of different relays
	Sequence   uint64    // the device's, when the count came into the sum
	StoredAt   time.Time // when that was
}

// SharedDevice is a device on several mailboxes, as all relays know it. The zero
// value with a key is one that nobody knows of.
type SharedDevice struct {
	DeviceKey
	Shared      bool   // false: it is on one mailbox at most, and the relay that has it pushes
	Sequence    uint64 // grows with every change of the sum's parts
	Accepted    uint64 // the sequence whose sum APNs accepted last
	Refused     *SharedRefusal
	Pusher      string    // the instance of the one relay that pushes; empty: the next that can
	PushAgainAt time.Time // when the sum is pushed once more: what went before may have followed; zero: no need
	Parts       []Part    // by organization and mailbox
}

// LivePart is a subscription of a device. Where an app shows no sum across
// organizations, the device is the organization's whose subscription was created
// first, until it has none left; the others' parts count nothing.
type LivePart struct {
	Key               MailboxKey
	Disabled          bool // the organization is
	otherOrganization bool // the device shows another one's counts alone; ofOneOrganization sets it
	Quarantined       bool // something is remembered of refusals
	CreatedAt         time.Time
	RegisteredAt      time.Time
}

// ExchangeTerms are what an exchange is decided on.
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

// Exchange brings an update into the device. It is the whole of what relays agree
// on, without a database: who calls it holds the device for itself, and keeps
// what comes out, or forgets the device where it is not Shared then.
func (d *SharedDevice) Exchange(u *SharedUpdate, t ExchangeTerms) {
	fresh, known, yield := !d.Shared, d.anyKnown(), u.Yield && t.Lifetime > 0
	unanswered, pusher := d.Outstanding(), d.Pusher
	if u.OneOrganization {
		t.Live = d.ofOneOrganization(t.Live)
	}
	d.reconcile(t)
	if fresh && len(d.Parts) < 2 {
		return
	}
	if fresh { // a relay that has not heard that it was not shared for a while still knows its last sequence
		d.Shared, d.Sequence = true, max(d.Sequence+1, uint64(t.Now.UnixMilli()))
		d.Accepted = d.Sequence
	}
	for i := range u.Counts {
		d.store(&u.Counts[i], t)
	}
	if fresh && t.Lifetime > 0 {
		d.PushAgainAt = t.Now.Add(t.Lifetime) // until then a relay may have one in flight that did not know
	}
	if !yield {
		d.electPusher(t)
	}
	if (fresh || unanswered && d.Pusher != pusher) && t.Stray > 0 {
		d.PushAgainAt = t.Now.Add(t.Stray) // until then the process before may have one in flight
	}
	if d.Pusher == t.Relay {
		d.Accepted = max(d.Accepted, min(u.Accepted, d.Sequence))
		if r := u.Refused; r != nil && r.Sequence <= d.Sequence && (d.Refused == nil || d.Refused.Sequence < r.Sequence) {
			d.Refused = r
		}
	}
	if yield && d.Pusher == t.Relay {
		d.Pusher = ""
	}
	if !known && !d.anyKnown() {
		d.Accepted = d.Sequence // there never was a sum
	}
	d.pushAgain(t)
}

// ofOneOrganization returns the subscriptions, of which those of one organization
// alone count: the one that the device is of.
func (d *SharedDevice) ofOneOrganization(live []LivePart) []LivePart {
	had := map[OrganizationID]bool{} // whose it was, and is though it may have moved the device since
	for _, p := range d.Parts {
		had[p.Key.Organization] = had[p.Key.Organization] || !p.Disabled
	}
	live = slices.Clone(live)
	var owner OrganizationID
	first := LivePart{}
	for _, l := range live {
		org := l.Key.Organization
		before := cmp.Or(compareBool(had[org], had[owner]), first.CreatedAt.Compare(l.CreatedAt), cmp.Compare(owner, org)) > 0
		if !l.Disabled && (owner == 0 || before) {
			owner, first = org, l
		}
	}
	for i := range live {
		live[i].otherOrganization = owner != 0 && live[i].Key.Organization != owner
	}
	return live
}

// compareBool returns 1 where a alone is true, -1 where b is, and 0 where they are alike.
func compareBool(a, b bool) int {
	switch {
	case a && !b:
		return 1
	case b && !a:
		return -1
	}
	return 0
}

// reconcile makes the parts those of the subscriptions that there are.
func (d *SharedDevice) reconcile(t ExchangeTerms) {
	had := d.Parts
	d.Parts = make([]Part, 0, len(t.Live))
	changed, kept := false, 0
	for _, l := range t.Live {
		disabled := l.Disabled || l.otherOrganization
		p := Part{Key: l.Key, JoinedAt: t.Now, Disabled: disabled}
		if i := slices.IndexFunc(had, func(p Part) bool { return p.Key == l.Key }); i >= 0 {
			p = had[i]
			kept++
			changed = changed || p.Disabled != disabled
			p.Disabled = disabled
		}
		p.Quarantined, p.OtherOrganization = l.Quarantined, l.otherOrganization
		d.Parts = append(d.Parts, p)
	}
	slices.SortFunc(d.Parts, func(a, b Part) int {
		return cmp.Or(cmp.Compare(a.Key.Organization, b.Key.Organization), cmp.Compare(a.Key.Mailbox, b.Key.Mailbox))
	})
	if changed || kept < len(had) {
		d.Sequence++ // the sum is another
		d.noteFall(had)
	}
}

// noteFall has the sum that lost or regained parts wait for their own organizations
// alone, see Ready: what these have left holds it.
func (d *SharedDevice) noteFall(had []Part) {
	for _, was := range had {
		if p := d.part(was.Key); p != nil && p.Disabled == was.Disabled {
			continue
		}
		for i := range d.Parts {
			if p := &d.Parts[i]; p.Key.Organization == was.Key.Organization && p.Known {
				p.Sequence = d.Sequence
			}
		}
	}
}

// store takes a count over, unless a newer one is there. What is newer than the
// shared clock comes from before the clock was set, and orders nothing.
func (d *SharedDevice) store(c *ReceivedCount, t ExchangeTerms) {
	p := d.part(c.Key)
	if p == nil || p.Known && c.ReceivedAt.Before(p.ReceivedAt) && !p.ReceivedAt.After(t.Now) {
		return
	}
	p.ReceivedAt = c.ReceivedAt
	if p.Disabled { // it is kept for when it is not any more
		p.Known, p.Count, p.StoredAt = true, c.Count, t.Now
		return
	}
	if p.Known && p.Count == c.Count && !d.pushedAnew(p, t) {
		return
	}
	d.Sequence++
	p.Known, p.Count, p.Sequence, p.StoredAt = true, c.Count, d.Sequence, t.Now
}

// pushedAnew reports whether a count that is stored has to be pushed all the same:
// long ago, before the device registered last, or without success.
func (d *SharedDevice) pushedAnew(p *Part, t ExchangeTerms) bool {
	stored := p.StoredAt.Truncate(time.Millisecond) // as registrations are kept
	registered := slices.ContainsFunc(t.Live, func(l LivePart) bool { return l.Key == p.Key && !l.RegisteredAt.Before(stored) })
	return registered || t.Now.Sub(p.StoredAt) >= t.ShownFor || d.refusal(p.Sequence) != nil
}

// electPusher has the relay push if nobody else does.
func (d *SharedDevice) electPusher(t ExchangeTerms) {
	if d.Pusher == t.Relay || d.Pusher != "" && t.Lifetime > 0 && !t.PusherFree {
		return
	}
	if t.Lifetime > 0 && d.Pusher != "" && t.PusherSilent && d.anyKnown() {
		d.Sequence++ // what it had in flight is not known
	}
	d.Pusher = t.Relay
}

// pushAgain counts the sum as another when it has to be pushed once more, and has
// a device that is on one mailbox go back to what it was.
func (d *SharedDevice) pushAgain(t ExchangeTerms) {
	due := !d.PushAgainAt.IsZero() && !d.PushAgainAt.After(t.Now)
	stray := t.Lifetime == 0 && !d.PushAgainAt.IsZero() && len(d.Parts) > 0 // it is pushed once more before
	if len(d.Parts) < 2 && !d.Outstanding() && !stray {
		if t.Lifetime == 0 || due || len(d.Parts) == 0 {
			d.Shared = false
		} else if d.PushAgainAt.IsZero() {
			d.PushAgainAt = t.Now.Add(t.Lifetime) // other relays have heard of it by then
		}
		return
	}
	if due {
		d.PushAgainAt = time.Time{}
		if d.anyKnown() {
			d.Sequence++
		}
	}
}

func (d *SharedDevice) anyKnown() bool {
	return slices.ContainsFunc(d.Parts, func(p Part) bool { return p.Known })
}

// part returns the device's part; nil: it is not on that mailbox.
func (d *SharedDevice) part(key MailboxKey) *Part {
	if i := slices.IndexFunc(d.Parts, func(p Part) bool { return p.Key == key }); i >= 0 {
		return &d.Parts[i]
	}
	return nil
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

// Waiting returns the organizations with a count that APNs has not answered.
func (d *SharedDevice) Waiting() (orgs []OrganizationID) {
	for _, p := range d.Parts {
		if p.Sequence > d.Answered() && !slices.Contains(orgs, p.Key.Organization) {
			orgs = append(orgs, p.Key.Organization)
		}
	}
	return orgs
}

// turns returns in whose turns of its app's queue the device waits: those of the
// organizations that wait; where none does, of that whose count changed the sum last.
func (d *SharedDevice) turns() []OrganizationID {
	if orgs := d.Waiting(); len(orgs) > 0 {
		return orgs
	}
	var last Part
	for _, p := range d.Parts {
		if last.Key.Organization == 0 || p.Sequence > last.Sequence {
			last = p
		}
	}
	return []OrganizationID{last.Key.Organization}
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
func (d *SharedDevice) Delivered(p *Part) bool { return p.Known && p.Sequence <= d.Accepted }

// Own returns what an organization may know of the device: its own mailboxes, their
// counts, and which of these were delivered. There is nothing in it of the parts of
// others, not that there are any: with one part of its own, it is not Shared.
func (d *SharedDevice) Own(org OrganizationID) SharedDevice {
	own := SharedDevice{DeviceKey: d.DeviceKey, Accepted: 1}
	for _, p := range d.Parts {
		if p.Key.Organization != org {
			continue
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

// Sum returns the badge: the counts that are known, up to the greatest badge.
func (d *SharedDevice) Sum() uint32 {
	sum := uint64(0)
	for i := range d.Parts {
		if p := &d.Parts[i]; p.Known && !p.Disabled {
			sum += uint64(p.Count)
		}
	}
	return uint32(min(sum, apns.MaxBadge))
}

// partTimeout is how long the counts of an organization wait for those that
// nobody has reported of its other mailboxes.
const partTimeout = time.Minute

// Awaited reports whether its organization's counts wait for the part's.
func (p *Part) Awaited(now time.Time) bool {
	return !p.Known && !p.Disabled && now.Sub(p.JoinedAt) < partTimeout
}

// Ready reports whether the sum may be pushed: an organization that changed it has
// reported all of its parts, or has had the time to. What another organization has
// not reported counts as nothing at once, so that a stranger holds no badge back.
func (d *SharedDevice) Ready(now time.Time) bool {
	changed := false
	complete := map[OrganizationID]bool{}
	for i := range d.Parts {
		p := &d.Parts[i]
		changed = changed || p.Sequence > d.Answered()
		known := !p.Awaited(now)
		if was, seen := complete[p.Key.Organization]; seen {
			known = known && was
		}
		complete[p.Key.Organization] = known
	}
	return slices.ContainsFunc(d.Parts, func(p Part) bool {
		return complete[p.Key.Organization] && (p.Sequence > d.Answered() || !changed)
	})
}

// Due reports whether a relay should look at the device: it waits for a push, which
// is the relay's. free says of its pusher what ExchangeTerms.PusherFree does.
func (d *SharedDevice) Due(relay string, lifetime time.Duration, free bool, now time.Time) bool {
	if d.Pusher != relay && d.Pusher != "" && lifetime > 0 && !free {
		return false
	}
	return d.Outstanding() || !d.PushAgainAt.IsZero() && !d.PushAgainAt.After(now)
}
