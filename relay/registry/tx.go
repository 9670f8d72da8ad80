package registry

import (
	"time"

	"badgerelay/relay"
)

// conn is the connection of a transaction that writes.
type conn interface {
	// queue adds a statement to those that flush sends.
	queue(s statement)
	// flush has the queued statements done, in their order and in one trip to
	// the server, if there is a server.
	flush() error
	// findDevices queues the reading of where devices of an organization are. k has
	// deviceColumns. each takes rows of the position in k, mailbox, created_at,
	// registered_at, and the number of live subscriptions of the mailbox; the same row
	// may come twice.
	findDevices(org int64, k *table, each func(scanner) error)
	// findMailboxes queues the reading of every subscription of devices, of whatever
	// organization. k has deviceColumns. each takes rows of the position in k,
	// organization, mailbox, created_at, registered_at, whether the organization is disabled or
	// removed, and whether something is remembered of refusals; the same row may come
	// twice.
	findMailboxes(k *table, each func(scanner) error)
	// moveDevices queues what is to be written where devices are found by, beside the
	// rows of subscriptions that go and come. Both tables begin with the columns
	// organization_id, device, mailbox.
	moveDevices(gone, come *table)
	// begun says that the waiting is over: from here on the caller's context
	// ends nothing.
	begun()
}

// tx is a transaction that writes; one goroutine uses it.
type tx struct {
	conn
	*dialect
	now time.Time // one time for everything in it, to the millisecond
	due time.Time // by which lifetimes have passed
	changes
}

// exec does a statement and returns the number of rows it changed.
func (t *tx) exec(query string, args ...any) (rows int64, err error) {
	t.queue(statement{query: query, args: args, done: func(n int64) { rows += n }})
	err = t.flush()
	return rows, err
}

// over queues a statement that changes what the rows of k name.
func (t *tx) over(k *table, query string, args ...any) {
	if query != "" && k.rows() > 0 {
		t.queue(statement{query: query, args: args, k: k})
	}
}

// each does a query and calls fn with its rows.
func (t *tx) each(query string, args []any, fn func(scanner) error) error {
	t.queue(statement{query: query, args: args, each: fn})
	return t.flush()
}

// lockOrganization reads an organization and holds its row's lock until the
// end: that is what gives its changes an order, and its counts their truth.
func (t *tx) lockOrganization(query string, arg any) (o Organization, err error) {
	t.queueOrganization(query, arg, &o)
	if err := t.flush(); err != nil {
		return o, err
	}
	t.begun()
	if o.ID == 0 {
		return o, ErrOrganizationNotFound
	}
	return o, nil
}

// queueOrganization queues what lockOrganization does, so that more can be read
// in the same trip. An organization that is not there leaves o's ID 0.
func (t *tx) queueOrganization(query string, arg any, o *Organization) {
	t.queue(statement{query: query + t.lock, args: []any{arg}, each: func(row scanner) (err error) {
		*o, err = scanOrganization(row)
		return err
	}})
}

// queueOrganizations queues the locking of those whose ids are the rows of k, in the order of their
// ids, so that two relays don't wait for each other.
func (t *tx) queueOrganizations(k *table, orgs map[relay.OrganizationID]Organization) {
	t.queue(statement{k: k, query: `SELECT ` + organizationColumns + ` FROM organizations WHERE id IN (SELECT id FROM k) AND removed_at IS NULL ORDER BY id` + t.lock,
		each: func(row scanner) error {
			o, err := scanOrganization(row)
			orgs[o.ID] = o
			return err
		}})
}

// count is how much the numbers of an organization change.
type count struct{ mailboxes, subscriptions int64 }

var countColumns = newColumns("id bigint", "m bigint", "s bigint")

// count queues the change of what organizations' rows say about their
// subscriptions.
func (t *tx) count(by map[relay.OrganizationID]count) {
	k := newTable(countColumns, len(by))
	for org, n := range by {
		if n != (count{}) {
			k.add(int64(org), n.mailboxes, n.subscriptions)
		}
	}
	t.over(k, `UPDATE organizations SET mailboxes = mailboxes + k.m, subscriptions = subscriptions + k.s FROM k WHERE organizations.id = k.id`)
}
