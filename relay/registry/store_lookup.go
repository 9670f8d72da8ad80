package registry

import (
	"context"
	"errors"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
)

// lookupBatch is the number of mailboxes that one query looks up.
const lookupBatch = 1024

// Lookup implements relay.Subscriptions. Like Scan it finds nothing of an organization
// that was removed, and may be restored.
func (s *store) Lookup(ctx context.Context, keys []relay.MailboxKey) (found [][]relay.Subscription, err error) {
	defer s.done(ctx, opLookup, time.Now(), &err)
	found = make([][]relay.Subscription, len(keys))
	apps := names{}
	for first := 0; first < len(keys); first += lookupBatch {
		part := keys[first:min(len(keys), first+lookupBatch)]
		if err := s.lookup(ctx, part, found[first:], apps); err != nil {
			return nil, err
		}
	}
	return found, nil
}

var lookupColumns = newColumns("organization_id bigint", "mailbox bytea")

func (s *store) lookup(ctx context.Context, keys []relay.MailboxKey, found [][]relay.Subscription, apps names) error {
	k := newTable(lookupColumns, len(keys))
	for _, key := range keys {
		k.add(int64(key.Organization), []byte(key.Mailbox))
	}
	var i, registered int64
	var app, token, quarantine raw
	var shared bool
	d := s.db.dialect()
	return s.db.read(ctx, statement{k: k, query: `SELECT k.i, s.app, s.token, s.registered_at, s.quarantine,
		EXISTS (SELECT 1 FROM shared_devices d WHERE d.app = s.app AND d.token = s.token)` + d.onOthers + ` FROM k ` +
		d.look("subscriptions", "s.organization_id = k.organization_id AND s.mailbox = k.mailbox") + `
		WHERE NOT EXISTS (SELECT 1 FROM organizations o WHERE o.id = k.organization_id AND o.removed_at IS NOT NULL)`,
		each: func(row scanner) error {
			if err := row.Scan(&i, &app, &token, &registered, &quarantine, &shared); err != nil {
				return err
			}
			sub, err := s.subscription(app, token, registered, quarantine, apps)
			if err != nil {
				return s.passOverUnreadable("subscriptions", err)
			}
			sub.Shared = shared
			found[i] = append(found[i], sub)
			return nil
		}})
}

// subscription makes one of a row, whose bytes are lent.
func (s *store) subscription(app, token []byte, registered int64, quarantine []byte, apps names) (sub relay.Subscription, err error) {
	sub = relay.Subscription{App: apps.of(app), RegisteredAt: fromMillis(registered)}
	if sub.Device, err = apns.DeviceTokenFromBytes(token); err != nil {
		return sub, &unreadableError{err}
	}
	sub.Quarantine = s.quarantine(quarantine)
	return sub, nil
}

// names lets the rows of an app share its string.
type names map[string]string

func (n names) of(raw []byte) string {
	name, ok := n[string(raw)]
	if !ok {
		name = string(raw)
		n[name] = name
	}
	return name
}

// scanBatch is the number of entries in a batch of Scan.
const scanBatch = 1024

// scanQuery reads everything, save what was removed, in the order of Scan.
const scanQuery = `SELECT organization_id, mailbox, app, token, registered_at, quarantine FROM subscriptions
	WHERE organization_id NOT IN (SELECT id FROM organizations WHERE removed_at IS NOT NULL) ORDER BY organization_id, mailbox`

// Scan implements relay.Subscriptions.
func (s *store) Scan(ctx context.Context, fn func(batch []Entry) error) (err error) {
	defer func() {
		if e, ok := errors.AsType[*callbackError](err); ok {
			err = e.error
		}
	}()
	defer s.done(ctx, opScan, time.Now(), &err)
	b := &batcher{store: s, fn: fn, batch: make([]Entry, 0, scanBatch), apps: names{}}
	if err := s.db.scan(ctx, b.add); err != nil {
		return err
	}
	return b.flush()
}

// batcher makes batches of the rows of scanQuery.
type batcher struct {
	store *store
	fn    func(batch []Entry) error
	batch []Entry
	key   relay.MailboxKey
	apps  names
}

// addEntry takes a row of scanQuery; the bytes are lent.
type addEntry func(org int64, mailbox, app, token []byte, registered int64, quarantine []byte) error

// add is an addEntry.
func (b *batcher) add(org int64, mailbox, app, token []byte, registered int64, quarantine []byte) error {
	if b.key.Organization != relay.OrganizationID(org) || b.key.Mailbox != string(mailbox) {
		b.key = relay.MailboxKey{Organization: relay.OrganizationID(org), Mailbox: string(mailbox)} // devices of a mailbox share its string
	}
	sub, err := b.store.subscription(app, token, registered, quarantine, b.apps)
	if err != nil {
		return b.store.passOverUnreadable("subscriptions", err)
	}
	b.batch = append(b.batch, Entry{Key: b.key, Subscription: sub})
	if len(b.batch) < scanBatch {
		return nil
	}
	return b.flush()
}

func (b *batcher) flush() error {
	if len(b.batch) == 0 {
		return nil
	}
	err := b.fn(b.batch)
	b.batch = b.batch[:0]
	if err != nil {
		return &callbackError{err}
	}
	return nil
}
