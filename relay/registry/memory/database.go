package memory

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// Database is what handles share. The zero value is empty and ready. It is safe
// for concurrent use.
type Database struct {
	// SubscriptionLifetime is how long a subscription lives without renewal. 0:
	// for ever. Set before the first handle is opened.
	SubscriptionLifetime time.Duration
	// Now is the database's clock. nil: time.Now.
	Now func() time.Time

	mu            sync.Mutex // guards what follows
	organizations map[relay.OrganizationID]*organization
	credentials   map[string]*registry.Credential // by id
	removedKeys   map[removedKey]time.Time        // certificates that a person removed, until they end
	budgets       map[string]*relay.Budget        // by app
	accepted      map[generation]int              // distinct devices, the most that was noted
	shared        map[relay.DeviceKey]relay.SharedDevice
	pushers       map[string]time.Time // by instance: when it was heard of
	lastID        relay.OrganizationID
	lastKey       int // credentials have ids that count up

	log     changeLog
	handles []*Handle
}

// organization is one with everything it has.
type organization struct {
	registry.Organization
	subscriptions map[place]*registry.Subscription
	removed       map[place]*registry.Subscription
	superseded    map[place]bool // of the removed ones: not restored
	mailboxes     map[string]int // live subscriptions
	writing       chan struct{}  // one slot: the row's lock
}

// installation is an app on a device.
type installation struct {
	app    string
	device apns.DeviceToken
}

// place is an installation on a mailbox.
type place struct {
	mailbox string
	installation
}

type removedKey struct {
	organization relay.OrganizationID
	certificate  [32]byte
}

// now is the time that rows are stamped with.
func (d *Database) now() time.Time {
	now := time.Now
	if d.Now != nil {
		now = d.Now
	}
	return time.UnixMilli(now().UnixMilli()).UTC()
}

// byName returns an organization; the caller holds mu.
func (d *Database) byName(name string) (*organization, error) {
	name, err := registry.NormalizeOrganization(name)
	if err != nil {
		return nil, err
	}
	for id, o := range d.organizations {
		if o.Name == name && !d.isRemoved(id) {
			return o, nil
		}
	}
	return nil, registry.ErrOrganizationNotFound
}

// removedByName returns a removed organization; the caller holds mu.
func (d *Database) removedByName(name string) (*organization, error) {
	name, err := registry.NormalizeOrganization(name)
	if err != nil {
		return nil, err
	}
	for id, o := range d.organizations {
		if o.Name == name && d.isRemoved(id) {
			return o, nil
		}
	}
	return nil, registry.ErrOrganizationNotFound
}

// isRemoved reports whether an organization was; the caller holds mu.
func (d *Database) isRemoved(id relay.OrganizationID) bool {
	return !d.organizations[id].RemovedAt.IsZero()
}

// byID returns an organization; the caller holds mu.
func (d *Database) byID(id relay.OrganizationID) (*organization, error) {
	if o := d.known(id); o != nil {
		return o, nil
	}
	return nil, registry.ErrOrganizationNotFound
}

// known returns an organization that is there and not removed, or nil; the caller
// holds mu.
func (d *Database) known(id relay.OrganizationID) *organization {
	if o := d.organizations[id]; o != nil && o.RemovedAt.IsZero() {
		return o
	}
	return nil
}

// row returns the organization as it is told.
func (o *organization) row() registry.Organization {
	row := o.Organization
	row.Limits.Apps = slices.Clone(row.Limits.Apps)
	row.Mailboxes, row.Subscriptions = uint64(len(o.mailboxes)), uint64(len(o.subscriptions))
	return row
}

// enter makes a subscription.
func (o *organization) enter(sub *registry.Subscription) {
	at := placeOf(sub)
	o.subscriptions[at] = sub
	o.mailboxes[at.mailbox]++
	delete(o.removed, at)
}

// leave ends a subscription.
func (o *organization) leave(at place) {
	delete(o.subscriptions, at)
	if o.mailboxes[at.mailbox]--; o.mailboxes[at.mailbox] == 0 {
		delete(o.mailboxes, at.mailbox)
	}
}

// on returns the mailboxes that an installation is on, in order.
func (o *organization) on(i installation) (mailboxes []string) {
	for p := range o.subscriptions {
		if p.installation == i {
			mailboxes = append(mailboxes, p.mailbox)
		}
	}
	slices.Sort(mailboxes)
	return mailboxes
}

// others returns those beside one.
func (o *organization) others(at place) []string {
	return slices.DeleteFunc(o.on(at.installation), func(mailbox string) bool { return mailbox == at.mailbox })
}

func (o *organization) change(kind registry.ChangeKind, mailbox string) registry.Change {
	return registry.Change{Kind: kind, Organization: o.ID, OrganizationName: o.Name, Mailbox: mailbox, Live: o.mailboxes[mailbox] > 0}
}

// sorted returns subscriptions by mailbox, app and device token.
func sorted(of map[place]*registry.Subscription) []*registry.Subscription {
	return slices.SortedFunc(maps.Values(of), func(a, b *registry.Subscription) int {
		return cmp.Or(cmp.Compare(a.Mailbox, b.Mailbox), cmp.Compare(a.App, b.App), compareTokens(a.Device, b.Device))
	})
}

func compareTokens(a, b apns.DeviceToken) int {
	return slices.Compare(a.AppendRaw(nil), b.AppendRaw(nil))
}
