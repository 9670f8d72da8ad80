package registry

import "time"

// This file opens the rules that hold for every store to stores outside of this
// package (registry/memory).

// Parse returns the credential that c describes, without id, organization and
// time of creation. What is wrong with it is an *InvalidError.
func (c NewCredential) Parse() (Credential, error) { return c.parse() }

// Normalize returns n as it is kept, or an *InvalidError.
func (n NewOrganization) Normalize() (NewOrganization, error) { return n.normalize() }

// Normalize returns u as it is kept, or an *InvalidError.
func (u OrganizationUpdate) Normalize() (OrganizationUpdate, error) { return u.normalize() }

// Apply changes in o what is set in u.
func (u OrganizationUpdate) Apply(o *Organization) { u.apply(o) }

// Validate returns an *InvalidError that names the field, or nil.
func (r Registration) Validate() error { return r.validate() }

// Validate returns an *InvalidError that names the field, or nil.
func (r RestoreRequest) Validate() error { return r.validate() }

// Fits reports whether a removed subscription is asked for.
func (r RestoreRequest) Fits(s *Subscription) bool {
	return (r.Organization == 0 || r.Organization == s.Organization) && (r.Mailbox == "" || r.Mailbox == s.Mailbox) &&
		(r.App == "" || r.App == s.App) && (r.Reason == "" || r.Reason == s.RemovalReason) &&
		(r.From.IsZero() || s.RemovedAt.UnixMilli() >= r.From.UnixMilli()) &&
		(r.Until.IsZero() || s.RemovedAt.UnixMilli() < r.Until.UnixMilli())
}

// Validate returns an *InvalidError that names the field, or nil.
func (m DeviceMailboxes) Validate() error { return m.validate() }

// Allow returns a *LimitError if the app may not be used, or nil.
func (l Limits) Allow(app string) error { return l.allows(app) }

// Thumbprint returns the SHA-1 that 40 hexadecimal digits say; nil for others.
func Thumbprint(s string) []byte { return thumbprint(s) }

// Position returns the size of a page and the mailbox, app and raw device token
// that it follows; nil: it is the first.
func (f SubscriptionFilter) Position(page Page) (size int, after []string, err error) {
	return f.page(page)
}

// Cut takes off what was read beyond a page, and returns the token of the next.
func (f SubscriptionFilter) Cut(subs []Subscription, size int) ([]Subscription, string) {
	return f.cut(subs, fitting(subs, size))
}

// OrganizationPosition returns the size of a page and the name that it follows.
func OrganizationPosition(page Page) (size int, after string, err error) {
	return organizationPage(page)
}

// CutOrganizations takes off what was read beyond a page, and returns the token
// of the next.
func CutOrganizations(os []Organization, size int) ([]Organization, string) {
	return cutOrganizations(os, size)
}

// Position is how far a reader has come in a log of changes; what it does is
// position.go's, the same for every log. The zero value is before the first
// change.
type Position struct{ at position }

// LoggedChange is a row of a log of changes: its id, the transaction that wrote
// it, and what that changed.
type LoggedChange struct {
	ID, Transaction int64
	Changes         []Change
}

// PositionAtEnd is behind everything up to the id last, save what transactions
// that had not ended in the snapshot have still to commit.
func PositionAtEnd(last int64, seen Snapshot) Position {
	return Position{position{last: last, seen: seen}}
}

// Told reports whether a row has been read. A reader asks for those that have
// not, in one state of the log.
func (p Position) Told(id, transaction int64) bool { return p.at.told(checkpoint{id, transaction}) }

// Next returns the position after rows were read, in the order of their ids and
// in this snapshot.
func (p Position) Next(rows []LoggedChange, seen Snapshot, now time.Time) Position {
	read := page{seen: seen}
	for _, r := range rows {
		read.rows = append(read.rows, keptChange{checkpoint{r.ID, r.Transaction}, r.Changes})
	}
	return Position{p.at.next(read, now)}
}
