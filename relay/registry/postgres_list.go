package registry

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"badgerelay/apns"
	"badgerelay/relay"
)

// ListSubscriptions implements Registry.
func (p *Postgres) ListSubscriptions(ctx context.Context, f SubscriptionFilter, page Page) (subs []Subscription, next string, err error) {
	defer p.done(ctx, opList, time.Now(), &err)
	size, after, err := f.page(page)
	if err != nil {
		return nil, "", err
	}
	call, cancel := p.call(ctx)
	defer cancel()
	query, args := f.pgQuery(after, size+1) // one more says whether there is a next page
	rows, err := p.pool.Query(call, query, args...)
	err = pgEachRow(rows, err, func(rows pgx.Rows) error {
		sub, err := p.scanSubscription(rows, f)
		subs = append(subs, sub)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	if len(subs) == 0 && after == nil {
		_, err := scanOrganization(p.pool.QueryRow(call, pgOrganizationByID, int64(f.Organization)))
		return nil, "", err
	}
	subs, next = f.cut(subs, size)
	return subs, next, nil
}

// pgQuery returns the query that f and a position ask for.
func (f SubscriptionFilter) pgQuery(after []string, limit int) (string, []any) {
	var q strings.Builder
	var args []any
	arg := func(v any) string {
		args = append(args, v)
		return fmt.Sprint("$", len(args))
	}
	if f.Removed {
		q.WriteString(`SELECT mailbox, app, token, created_at, registered_at, removed_at, reason FROM removed_subscriptions
			WHERE removed_at > ` + arg(time.Now().Add(-RemovedRetention).UnixMilli()))
	} else {
		q.WriteString(`SELECT mailbox, app, token, created_at, registered_at, 0::bigint, ''::bytea FROM subscriptions WHERE true`)
	}
	q.WriteString(` AND organization_id = ` + arg(int64(f.Organization)))
	if f.Mailbox != "" {
		q.WriteString(` AND mailbox = ` + arg([]byte(f.Mailbox)))
	}
	if after != nil {
		q.WriteString(` AND (mailbox, app, token) > (` + arg([]byte(after[0])) + `, ` + arg([]byte(after[1])) + `, ` + arg([]byte(after[2])) + `)`)
	}
	q.WriteString(` ORDER BY mailbox, app, token LIMIT ` + arg(limit))
	return q.String(), args
}

func (p *Postgres) scanSubscription(rows pgx.Rows, f SubscriptionFilter) (Subscription, error) {
	sub := Subscription{Organization: f.Organization}
	var mailbox, app, token, reason []byte
	var created, registered, removed int64
	err := rows.Scan(&mailbox, &app, &token, &created, &registered, &removed, &reason)
	if err != nil {
		return sub, err
	}
	if sub.Device, err = apns.DeviceTokenFromBytes(token); err != nil {
		return sub, err
	}
	sub.Mailbox, sub.App, sub.RemovalReason = string(mailbox), string(app), apns.Reason(reason)
	sub.CreatedAt, sub.RegisteredAt = fromMillis(created), fromMillis(registered)
	sub.ExpiresAt = expiry(sub.RegisteredAt, p.lifetime)
	if f.Removed {
		sub.RemovedAt = fromMillis(removed)
	}
	return sub, nil
}

// Mailboxes implements Registry.
func (p *Postgres) Mailboxes(ctx context.Context, org relay.OrganizationID, after string, limit int) (mailboxes []string, err error) {
	defer p.done(ctx, opMailboxes, time.Now(), &err)
	call, cancel := p.call(ctx)
	defer cancel()
	rows, err := p.pool.Query(call, `SELECT DISTINCT mailbox FROM subscriptions
		WHERE organization_id = $1 AND mailbox > $2 ORDER BY mailbox LIMIT $3`, int64(org), []byte(after), max(limit, 0))
	err = pgEachRow(rows, err, func(rows pgx.Rows) error {
		mailboxes = append(mailboxes, string(rows.RawValues()[0]))
		return nil
	})
	return mailboxes, err
}
