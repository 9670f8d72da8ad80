package registry

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"badgerelay/apns"
	"badgerelay/relay"
)

// pgLookupBatch is the number of mailboxes that one query looks up.
const pgLookupBatch = 1024

// Lookup implements relay.Subscriptions.
func (p *Postgres) Lookup(ctx context.Context, keys []relay.MailboxKey) (found [][]relay.Subscription, err error) {
	defer p.done(ctx, opLookup, time.Now(), &err)
	found = make([][]relay.Subscription, len(keys))
	for first := 0; first < len(keys); first += pgLookupBatch {
		part := keys[first:min(len(keys), first+pgLookupBatch)]
		if err := p.lookup(ctx, part, found[first:]); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (p *Postgres) lookup(ctx context.Context, keys []relay.MailboxKey, found [][]relay.Subscription) error {
	call, cancel := p.call(ctx)
	defer cancel()
	orgs, mailboxes := make([]int64, len(keys)), make([][]byte, len(keys))
	for i, key := range keys {
		orgs[i], mailboxes[i] = int64(key.Organization), []byte(key.Mailbox)
	}
	rows, err := p.pool.Query(call, `SELECT k.i, s.registered_at, s.app, s.token
		FROM unnest($1::bigint[], $2::bytea[]) WITH ORDINALITY AS k (organization_id, mailbox, i)
		CROSS JOIN LATERAL (SELECT app, token, registered_at FROM subscriptions
			WHERE organization_id = k.organization_id AND mailbox = k.mailbox OFFSET 0) s`, orgs, mailboxes)
	apps := names{}
	return pgEachRow(rows, err, func(rows pgx.Rows) error {
		raw := rows.RawValues()
		sub, err := apps.subscription(raw[1:])
		if err == nil {
			i := pgInt64(raw[0]) - 1
			found[i] = append(found[i], sub)
		}
		return err
	})
}

// pgInt64 reads a bigint as the server sends it.
func pgInt64(raw []byte) int64 { return int64(binary.BigEndian.Uint64(raw)) }

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

// subscription reads registered_at, app and token as the server sends them.
func (n names) subscription(raw [][]byte) (relay.Subscription, error) {
	token, err := apns.DeviceTokenFromBytes(raw[2])
	return relay.Subscription{App: n.of(raw[1]), Device: token, RegisteredAt: fromMillis(pgInt64(raw[0]))}, err
}

// callbackError is an error of Scan's callback, which is none of the database.
type callbackError struct{ error }

func (e *callbackError) Unwrap() error { return e.error }

// Scan implements relay.Subscriptions. One statement sees one state, and its rows
// come as fast as they are taken.
func (p *Postgres) Scan(ctx context.Context, fn func(batch []Entry) error) (err error) {
	defer func() {
		if e, ok := errors.AsType[*callbackError](err); ok {
			err = e.error
		}
	}()
	defer p.done(ctx, opScan, time.Now(), &err)
	rows, err := p.pool.Query(ctx, `SELECT organization_id, mailbox, registered_at, app, token FROM subscriptions ORDER BY organization_id, mailbox`)
	batch := make([]Entry, 0, scanBatch)
	var key relay.MailboxKey
	apps := names{}
	err = pgEachRow(rows, err, func(rows pgx.Rows) error {
		raw := rows.RawValues()
		if org := relay.OrganizationID(pgInt64(raw[0])); key.Organization != org || key.Mailbox != string(raw[1]) {
			key = relay.MailboxKey{Organization: org, Mailbox: string(raw[1])} // devices of a mailbox share its string
		}
		sub, err := apps.subscription(raw[2:])
		if err != nil {
			return err
		}
		if batch = append(batch, Entry{Key: key, Subscription: sub}); len(batch) < scanBatch {
			return nil
		}
		err = fn(batch)
		batch = batch[:0]
		if err != nil {
			return &callbackError{err}
		}
		return nil
	})
	if err != nil || len(batch) == 0 {
		return err
	}
	if err := fn(batch); err != nil {
		return &callbackError{err}
	}
	return nil
}

// Remove implements relay.Subscriptions.
func (p *Postgres) Remove(ctx context.Context, removals []relay.Removal) (removed []bool, err error) {
	if len(removals) == 0 {
		return nil, nil
	}
	defer p.done(ctx, opRemove, time.Now(), &err)
	removed = make([]bool, len(removals))
	for first := 0; first < len(removals); first += removeBatch {
		part := removals[first:min(len(removals), first+removeBatch)]
		err := p.write(ctx, func(t *pgTx) error { return t.removeAll(part, removed[first:]) })
		if err != nil {
			return nil, err
		}
	}
	return removed, nil
}

func (t *pgTx) removeAll(removals []relay.Removal, removed []bool) error {
	orgs, err := t.lockOrganizations(removals)
	if err != nil {
		return err
	}
	for i, r := range removals {
		o, known := orgs[r.Key.Organization]
		if !known || r.Device.IsZero() {
			continue
		}
		if removed[i], err = t.remove(o, r); err != nil {
			return err
		}
	}
	return nil
}

// lockOrganizations locks the organizations of removals, in the order of their
// ids, so that two relays don't wait for each other.
func (t *pgTx) lockOrganizations(removals []relay.Removal) (map[relay.OrganizationID]Organization, error) {
	var ids []int64
	for _, r := range removals {
		ids = append(ids, int64(r.Key.Organization))
	}
	slices.Sort(ids)
	orgs := make(map[relay.OrganizationID]Organization)
	err := t.rows(`SELECT `+organizationColumns+` FROM organizations WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE`,
		[]any{slices.Compact(ids)}, func(rows pgx.Rows) error {
			o, err := scanOrganization(rows)
			orgs[o.ID] = o
			return err
		})
	t.begun()
	return orgs, err
}

// remove ends one subscription and remembers why.
func (t *pgTx) remove(o Organization, r relay.Removal) (bool, error) {
	before := int64(1<<63 - 1)
	if !r.Timestamp.IsZero() {
		before = r.Timestamp.UnixMilli()
	}
	n, err := t.exec(`WITH gone AS (DELETE FROM subscriptions
			WHERE organization_id = $1 AND mailbox = $2 AND app = $3 AND token = $4 AND registered_at < $5
			RETURNING organization_id, mailbox, app, token, created_at, registered_at)
		INSERT INTO removed_subscriptions (organization_id, mailbox, app, token, created_at, registered_at, removed_at, reason)
		SELECT gone.*, $6, $7 FROM gone
		ON CONFLICT (organization_id, mailbox, app, token) DO UPDATE SET created_at = excluded.created_at,
		registered_at = excluded.registered_at, removed_at = excluded.removed_at, reason = excluded.reason`,
		int64(o.ID), []byte(r.Key.Mailbox), []byte(r.App), r.Device.AppendRaw(nil), before, t.now.UnixMilli(), []byte(r.Reason))
	if err != nil || n == 0 {
		return false, err
	}
	return true, t.left(o, r.Key.Mailbox)
}
