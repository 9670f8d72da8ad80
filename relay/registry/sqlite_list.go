package registry

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
)

// ListSubscriptions implements Registry.
func (s *SQLite) ListSubscriptions(ctx context.Context, f SubscriptionFilter, page Page) (subs []Subscription, next string, err error) {
	defer s.done(opList, time.Now(), &err)
	size, after, err := f.page(page)
	if err != nil {
		return nil, "", err
	}
	query, args := f.query(after)
	rows, err := s.readers.QueryContext(ctx, query, append(args, size+1)...) // one more says whether there is a next page
	err = eachRow(rows, err, func(rows *sql.Rows) error {
		sub, err := s.scanSubscription(rows, f)
		subs = append(subs, sub)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	if len(subs) == 0 && after == nil {
		_, err := scanOrganization(s.readers.QueryRowContext(ctx, organizationByID, int64(f.Organization)))
		return nil, "", err
	}
	subs, next = f.cut(subs, size)
	return subs, next, nil
}

// query returns the query that f and a position ask for; its last argument,
// the limit, is left to the caller.
func (f SubscriptionFilter) query(after []string) (string, []any) {
	var q strings.Builder
	args := []any{int64(f.Organization)}
	if f.Removed {
		q.WriteString(`SELECT mailbox, app, token, created_at, registered_at, removed_at, reason FROM removed_subscriptions
			WHERE organization_id = ? AND removed_at > ?`)
		args = append(args, time.Now().Add(-RemovedRetention).UnixMilli())
	} else {
		q.WriteString(`SELECT mailbox, app, token, created_at, registered_at, 0, '' FROM subscriptions WHERE organization_id = ?`)
	}
	if f.Mailbox != "" {
		q.WriteString(` AND mailbox = ?`)
		args = append(args, f.Mailbox)
	}
	if after != nil {
		q.WriteString(` AND (mailbox, app, token) > (?, ?, ?)`)
		args = append(args, after[0], after[1], []byte(after[2]))
	}
	q.WriteString(` ORDER BY mailbox, app, token LIMIT ?`)
	return q.String(), args
}

func (s *SQLite) scanSubscription(rows *sql.Rows, f SubscriptionFilter) (Subscription, error) {
	sub := Subscription{Organization: f.Organization}
	var token sql.RawBytes
	var created, registered, removed int64
	err := rows.Scan(&sub.Mailbox, &sub.App, &token, &created, &registered, &removed, &sub.RemovalReason)
	if err != nil {
		return sub, err
	}
	if sub.Device, err = apns.DeviceTokenFromBytes(token); err != nil {
		return sub, err
	}
	sub.CreatedAt, sub.RegisteredAt = fromMillis(created), fromMillis(registered)
	sub.ExpiresAt = expiry(sub.RegisteredAt, s.lifetime)
	if f.Removed {
		sub.RemovedAt = fromMillis(removed)
	}
	return sub, nil
}

// Mailboxes implements Registry.
func (s *SQLite) Mailboxes(ctx context.Context, org relay.OrganizationID, after string, limit int) (mailboxes []string, err error) {
	defer s.done(opMailboxes, time.Now(), &err)
	rows, err := s.readers.QueryContext(ctx, `SELECT DISTINCT mailbox FROM subscriptions
		WHERE organization_id = ? AND mailbox > ? ORDER BY mailbox LIMIT ?`, int64(org), after, max(limit, 0))
	err = eachRow(rows, err, func(rows *sql.Rows) error {
		var mailbox string
		err := rows.Scan(&mailbox)
		mailboxes = append(mailboxes, mailbox)
		return err
	})
	return mailboxes, err
}
