package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"badgerelay/relay"
)

// rowSizes are the numbers of rows that one statement reads or writes, largest
// first. Few sizes make few statements to prepare.
var rowSizes = [...]int{128, 16, 1}

// inParts calls fn with parts of items, each of one of rowSizes.
func inParts[T any](items []T, fn func(part []T) error) error {
	for _, size := range rowSizes {
		for len(items) >= size {
			if err := fn(items[:size]); err != nil {
				return err
			}
			items = items[size:]
		}
	}
	return nil
}

// values returns n tuples for VALUES.
func values(tuple string, n int) string {
	return strings.Repeat(tuple+", ", n-1) + tuple
}

// numberedValues returns n tuples for VALUES, the last member of each its
// position, from 0.
func numberedValues(start string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s%d), ", start, i)
	}
	return strings.TrimSuffix(b.String(), ", ")
}

// Subscribe implements Registry.
func (s *SQLite) Subscribe(ctx context.Context, org relay.OrganizationID, r Registration) (result SubscribeResult, err error) {
	defer s.done(opSubscribe, time.Now(), &err)
	if err := r.validate(); err != nil {
		return SubscribeResult{}, err
	}
	err = s.write(ctx, func(t *tx) error {
		p, err := s.plan(t, org, []Registration{r})
		if err != nil {
			return err
		}
		if result, err = p.subscribe(r); err != nil {
			return err
		}
		return t.apply(p)
	})
	if err != nil {
		return SubscribeResult{}, err
	}
	return result, nil
}

// ImportSubscriptions implements Registry.
func (s *SQLite) ImportSubscriptions(ctx context.Context, org relay.OrganizationID, rs []Registration) (result ImportResult, err error) {
	defer s.done(opImport, time.Now(), &err)
	return importInBatches(rs, s.batch, func(rs []Registration, decide func(*plan)) error {
		return s.write(ctx, func(t *tx) error {
			p, err := s.plan(t, org, rs)
			if err != nil {
				return err
			}
			decide(p)
			return t.apply(p)
		})
	})
}

// plan reads what registrations of an organization are decided on.
func (s *SQLite) plan(t *tx, org relay.OrganizationID, rs []Registration) (*plan, error) {
	o, err := t.organization(organizationByID, int64(org))
	if err != nil {
		return nil, err
	}
	p := newPlan(o, t.now, s.lifetime)
	if err := t.readDevices(p, rs); err != nil {
		return nil, err
	}
	return p, t.readMailboxes(p, rs)
}

// readMailboxes fills p.live: the mailboxes to come to and those to be left.
func (t *tx) readMailboxes(p *plan, rs []Registration) error {
	return inParts(p.mailboxesOf(rs), func(part []string) error {
		args := make([]any, 0, len(part)+1)
		for _, mailbox := range part {
			args = append(args, mailbox)
		}
		return t.rows(`WITH k (mailbox) AS (VALUES `+values("(?)", len(part))+`)
			SELECT s.mailbox, count(*) FROM k CROSS JOIN subscriptions s
			ON s.organization_id = ? AND s.mailbox = k.mailbox GROUP BY k.mailbox`, append(args, int64(p.org.ID)),
			func(rows *sql.Rows) error {
				var mailbox string
				var n int64
				err := rows.Scan(&mailbox, &n)
				if err == nil {
					*p.live[mailbox] = liveCount{n, n}
				}
				return err
			})
	})
}

// apply writes what p decided.
func (t *tx) apply(p *plan) error {
	var created []*placement
	for _, at := range p.touched {
		if at.was != "" && at.was != at.is {
			if _, err := t.exec(deleteSubscription, int64(p.org.ID), at.was, at.app, at.token.AppendRaw(nil)); err != nil {
				return err
			}
		}
		if !at.renewed {
			created = append(created, at)
		}
	}
	if err := t.upsert(p); err != nil {
		return err
	}
	if err := t.putDevices(p.org.ID, created); err != nil {
		return err
	}
	if err := t.forgetRemoved(p.org.ID, created); err != nil {
		return err
	}
	t.changes = append(t.changes, p.changes()...)
	return t.count(p.org.ID, p.mailboxes, p.subscriptions)
}

const deleteSubscription = `DELETE FROM subscriptions WHERE organization_id = ? AND mailbox = ? AND app = ? AND token = ?`

// upsert writes subscriptions. What all have in common is bound once.
func (t *tx) upsert(p *plan) error {
	return inParts(p.touched, func(part []*placement) error {
		args := append(make([]any, 0, 4*len(part)+2), int64(p.org.ID), p.now.UnixMilli())
		for _, at := range part {
			args = append(args, at.is, at.app, at.token.AppendRaw(nil), at.created.UnixMilli())
		}
		_, err := t.exec(`INSERT INTO subscriptions (organization_id, registered_at, mailbox, app, token, created_at)
			VALUES `+values("(?1, ?2, ?, ?, ?, ?)", len(part))+`
			ON CONFLICT (organization_id, mailbox, app, token) DO UPDATE
			SET created_at = excluded.created_at, registered_at = excluded.registered_at`, args...)
		return err
	})
}

// forgetRemoved drops the memory of having been removed from those that are
// live again.
func (t *tx) forgetRemoved(org relay.OrganizationID, created []*placement) error {
	if len(created) == 0 {
		return nil
	}
	var one int
	err := t.row(`SELECT 1 FROM removed_subscriptions WHERE organization_id = ? LIMIT 1`, []any{int64(org)}, &one)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, at := range created {
		_, err := t.exec(`DELETE FROM removed_subscriptions WHERE organization_id = ? AND mailbox = ? AND app = ? AND token = ?`,
			int64(org), at.is, at.app, at.token.AppendRaw(nil))
		if err != nil {
			return err
		}
	}
	return nil
}

// Unsubscribe implements Registry.
func (s *SQLite) Unsubscribe(ctx context.Context, org relay.OrganizationID, r Registration) (err error) {
	defer s.done(opUnsubscribe, time.Now(), &err)
	if err := r.validate(); err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		n, err := t.exec(deleteSubscription, int64(org), r.Mailbox, r.App, r.Device.AppendRaw(nil))
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrSubscriptionNotFound
		}
		key := relay.MailboxKey{Organization: org, Mailbox: r.Mailbox}
		if err := t.dropDevice(key, device{r.App, r.Device}); err != nil {
			return err
		}
		return t.left(key)
	})
}

// left counts and tells that one subscription of the mailbox is gone.
func (t *tx) left(key relay.MailboxKey) error {
	var live bool
	err := t.row(`SELECT EXISTS (SELECT 1 FROM subscriptions WHERE organization_id = ? AND mailbox = ?)`,
		[]any{int64(key.Organization), key.Mailbox}, &live)
	if err != nil {
		return err
	}
	o, err := t.organization(organizationByID, int64(key.Organization))
	if err != nil {
		return err
	}
	t.changes = append(t.changes, Change{Kind: ChangeUnsubscribed, Organization: o.ID, OrganizationName: o.Name,
		Mailbox: key.Mailbox, Live: live})
	if live {
		return t.count(key.Organization, 0, -1)
	}
	return t.count(key.Organization, -1, -1)
}
