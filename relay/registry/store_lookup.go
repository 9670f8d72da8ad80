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

// Lookup implements relay.Subscriptions.
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
	var app, token raw
	return s.db.read(ctx, statement{k: k, query: `SELECT k.i, s.app, s.token, s.registered_at FROM k ` +
		s.db.dialect().look("subscriptions", "s.organization_id = k.organization_id AND s.mailbox = k.mailbox"),
		each: func(row scanner) error {
			if err := row.Scan(&i, &app, &token, &registered); err != nil {
				return err
			}
			device, err := apns.DeviceTokenFromBytes(token)
			found[i] = append(found[i], relay.Subscription{App: apps.of(app), Device: device, RegisteredAt: fromMillis(registered)})
			return err
		}})
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

// scanQuery reads everything in the order of Scan.
const scanQuery = `SELECT organization_id, mailbox, app, token, registered_at FROM subscriptions ORDER BY organization_id, mailbox`

// Scan implements relay.Subscriptions.
func (s *store) Scan(ctx context.Context, fn func(batch []Entry) error) (err error) {
	defer func() {
		if e, ok := errors.AsType[*callbackError](err); ok {
			err = e.error
		}
	}()
	defer s.done(ctx, opScan, time.Now(), &err)
	b := &batcher{fn: fn, batch: make([]Entry, 0, scanBatch), apps: names{}}
	if err := s.db.scan(ctx, b.add); err != nil {
		return err
	}
	return b.flush()
}

// batcher makes batches of the rows of scanQuery.
type batcher struct {
	fn    func(batch []Entry) error
	batch []Entry
	key   relay.MailboxKey
	apps  names
}

// addEntry takes a row of scanQuery; the bytes are lent.
type addEntry func(org int64, mailbox, app, token []byte, registered int64) error

// add is an addEntry.
func (b *batcher) add(org int64, mailbox, app, token []byte, registered int64) error {
	if b.key.Organization != relay.OrganizationID(org) || b.key.Mailbox != string(mailbox) {
		b.key = relay.MailboxKey{Organization: relay.OrganizationID(org), Mailbox: string(mailbox)} // devices of a mailbox share its string
	}
	device, err := apns.DeviceTokenFromBytes(token)
	if err != nil {
		return err
	}
	b.batch = append(b.batch, Entry{Key: b.key, Subscription: relay.Subscription{App: b.apps.of(app), Device: device, RegisteredAt: fromMillis(registered)}})
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
