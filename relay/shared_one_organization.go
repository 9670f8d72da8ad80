package relay

import (
	"cmp"
	"slices"
	"time"
)

// LivePart is a subscription of a device. Where an app shows no sum across
// organizations, the device is the organization's whose subscription was created
// first, until it has none left or is disabled; the others' parts count nothing.
type LivePart struct {
	Key               MailboxKey
	Disabled          bool // the organization is
	otherOrganization bool // the device shows another one's counts alone; ofOneOrganization sets it
	Quarantined       bool // something is remembered of refusals
	CreatedAt         time.Time
	RegisteredAt      time.Time
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
