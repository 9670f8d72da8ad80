package registry

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
)

// lookupSizes are the numbers of mailboxes that one query looks up, smallest
// first. A query takes the smallest that holds what is left; empty places cost
// next to nothing.
var lookupSizes = [...]int{1, 16, 256}

// lookupQuery returns the query for n mailboxes. The join's order is forced:
// without it SQLite may walk through the whole table.
func lookupQuery(n int) string {
	return `WITH k (organization_id, mailbox, i) AS (VALUES ` + values("(?, ?, ?)", n) + `)
		SELECT k.i, s.app, s.token, s.registered_at FROM k CROSS JOIN subscriptions s
		ON s.organization_id = k.organization_id AND s.mailbox = k.mailbox`
}

// Lookup implements relay.Subscriptions.
func (s *SQLite) Lookup(ctx context.Context, keys []relay.MailboxKey) (found [][]relay.Subscription, err error) {
	defer s.done(opLookup, time.Now(), &err)
	found = make([][]relay.Subscription, len(keys))
	var i int
	r := newSubscriptionReader(&i)
	for first := 0; first < len(keys); {
		which := 0
		for which < len(lookupSizes)-1 && lookupSizes[which] < len(keys)-first {
			which++
		}
		part := keys[first:min(len(keys), first+lookupSizes[which])]
		if err := s.lookup(ctx, which, part, found[first:], r, &i); err != nil {
			return nil, err
		}
		first += len(part)
	}
	return found, nil
}

// lookup runs one query; r reads the position of a row's key into i.
func (s *SQLite) lookup(ctx context.Context, which int, keys []relay.MailboxKey, found [][]relay.Subscription, r *subscriptionReader, i *int) error {
	args := make([]any, 3*lookupSizes[which])
	for n, key := range keys {
		args[3*n], args[3*n+1], args[3*n+2] = int64(key.Organization), key.Mailbox, n
	}
	rows, err := s.lookups[which].QueryContext(ctx, args...)
	return eachRow(rows, err, func(rows *sql.Rows) error {
		sub, err := r.scan(rows)
		if err == nil {
			found[*i] = append(found[*i], sub)
		}
		return err
	})
}

// subscriptionReader reads app, token and registered_at from the ends of rows;
// every row of an app shares the app's string.
type subscriptionReader struct {
	dest       []any // of every row: what comes first, then the fields below
	apps       map[string]string
	app, token sql.RawBytes
	registered int64
}

func newSubscriptionReader(first ...any) *subscriptionReader {
	r := &subscriptionReader{apps: make(map[string]string)}
	r.dest = append(first, &r.app, &r.token, &r.registered)
	return r
}

func (r *subscriptionReader) scan(rows *sql.Rows) (relay.Subscription, error) {
	if err := rows.Scan(r.dest...); err != nil {
		return relay.Subscription{}, err
	}
	app, ok := r.apps[string(r.app)]
	if !ok {
		app = string(r.app)
		r.apps[app] = app
	}
	token, err := apns.DeviceTokenFromBytes(r.token)
	return relay.Subscription{App: app, Device: token, RegisteredAt: fromMillis(r.registered)}, err
}

// removeBatch is the number of removals in a transaction; contract of Registry.
const removeBatch = 1000

// Remove implements relay.Subscriptions.
func (s *SQLite) Remove(ctx context.Context, removals []relay.Removal) (removed []bool, err error) {
	if len(removals) == 0 {
		return nil, nil
	}
	defer s.done(opRemove, time.Now(), &err)
	removed = make([]bool, len(removals))
	for first := 0; first < len(removals); first += removeBatch {
		part := removals[first:min(len(removals), first+removeBatch)]
		err := s.write(ctx, func(t *tx) error {
			for i, r := range part {
				ok, err := t.remove(r)
				if err != nil {
					return err
				}
				removed[first+i] = ok
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return removed, nil
}

// remove ends one subscription and remembers why.
func (t *tx) remove(r relay.Removal) (bool, error) {
	if r.Device.IsZero() {
		return false, nil
	}
	before := int64(1<<63 - 1)
	if !r.Timestamp.IsZero() {
		before = r.Timestamp.UnixMilli()
	}
	org, token := int64(r.Key.Organization), r.Device.AppendRaw(nil)
	var created, registered int64
	err := t.row(deleteSubscription+` AND registered_at < ? RETURNING created_at, registered_at`,
		[]any{org, r.Key.Mailbox, r.App, token, before}, &created, &registered)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := t.dropDevice(r.Key, device{r.App, r.Device}); err != nil {
		return false, err
	}
	_, err = t.exec(`INSERT INTO removed_subscriptions
		(organization_id, mailbox, app, token, created_at, registered_at, removed_at, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (organization_id, mailbox, app, token) DO UPDATE SET created_at = excluded.created_at,
		registered_at = excluded.registered_at, removed_at = excluded.removed_at, reason = excluded.reason`,
		org, r.Key.Mailbox, r.App, token, created, registered, t.now.UnixMilli(), string(r.Reason))
	if err != nil {
		return false, err
	}
	return true, t.left(r.Key)
}
