package relay

import (
	"slices"
	"time"
)

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
		if p.JoinedAt.After(t.Now) { // the clock was set since
			p.JoinedAt = t.Now.Add(-partTimeout)
		}
		p.Quarantined, p.OtherOrganization = l.Quarantined, l.otherOrganization
		d.Parts = append(d.Parts, p)
	}
	slices.SortFunc(d.Parts, func(a, b Part) int { return compareKeys(a.Key, b.Key) })
	if changed || kept < len(had) {
		d.Sequence++ // the sum is another
		d.noteFall(had, t.Now)
	}
	if kept < len(d.Parts) {
		d.beginAnew(had, t.Now)
	}
}

// beginAnew has an organization that had one part, and has several, begin as it would if
// the device were shared from now on, as it is where no other organization is on it: what
// is stored of its part stays in the sum, but takes a relay that remembers it to be told of,
// as if that had not been stored. All relays hear of the registration.
func (d *SharedDevice) beginAnew(had []Part, now time.Time) {
	before, after := partsOf(had), partsOf(d.Parts)
	for i := range d.Parts {
		p := &d.Parts[i]
		if org := p.Key.Organization; before[org] != 1 || after[org] < 2 {
			continue
		}
		if p.State == PartCurrent && !p.Disabled {
			p.State = PartForgotten
		}
		if !p.reported() {
			p.JoinedAt = now
		}
	}
}

// partsOf returns how many parts are each organization's.
func partsOf(parts []Part) map[OrganizationID]int {
	n := map[OrganizationID]int{}
	for i := range parts {
		n[parts[i].Key.Organization]++
	}
	return n
}

// noteFall has the counts that an organization has left be pushed once more with the sum
// that lost or regained its parts, and this one wait for those that came meanwhile, see Ready;
// once, so that nobody can make it wait again and again.
func (d *SharedDevice) noteFall(had []Part, now time.Time) {
	waits := slices.ContainsFunc(had, func(p Part) bool { return p.Sequence > d.Answered() })
	for _, was := range had {
		if p := d.part(was.Key); p != nil && p.Disabled == was.Disabled {
			continue
		}
		for i := range d.Parts {
			p := &d.Parts[i]
			if p.Key.Organization != was.Key.Organization {
				continue
			}
			if p.includeAnew(now); !p.reported() && !waits {
				p.Sequence = d.Sequence
			}
		}
	}
}
