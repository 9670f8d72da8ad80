package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
)

// ListSubscriptions implements Registry.
func (s *store) ListSubscriptions(ctx context.Context, f SubscriptionFilter, page Page) (subs []Subscription, next string, err error) {
	defer s.done(ctx, opList, time.Now(), &err)
	size, after, err := f.page(page)
	if err != nil {
		return nil, "", err
	}
	wanted := size + 1 // one more says whether there is a next page
	for last, more := after, true; more; {
		limit, rows := wanted-len(subs), 0
		query, args := f.query(last, limit)
		err = s.query(ctx, query, args, func(row scanner) error {
			sub, key, err := s.scanSubscription(row, f)
			if rows, last = rows+1, key; err != nil {
				return s.passOverUnreadable(f.table(), err)
			}
			subs = append(subs, sub)
			return nil
		})
		if err != nil {
			return nil, "", err
		}
		more = rows == limit && len(subs) < wanted // some could not be read
	}
	if len(subs) == 0 && after == nil {
		_, err := s.organization(ctx, organizationByID, int64(f.Organization))
		return nil, "", err
	}
	if !f.Removed && len(subs) > 0 {
		if err := s.addOthers(ctx, f.Organization, subs); err != nil {
			return nil, "", err
		}
	}
	subs, next = f.cut(subs, fitting(subs, size))
	return subs, next, nil
}

// addOthers adds the other mailboxes of the organization that devices are on. It
// is a transaction that writes nothing: SQLite's index of devices is its writer's.
func (s *store) addOthers(ctx context.Context, org relay.OrganizationID, subs []Subscription) error {
	k := newTable(deviceColumns, len(subs))
	for i := range subs {
		k.add(deviceHash(device{subs[i].App, subs[i].Device}), []byte(subs[i].App), subs[i].Device.AppendRaw(nil))
	}
	err := s.change(ctx, func(t *tx) error {
		for i := range subs {
			subs[i].OtherMailboxes = nil
		}
		t.findMailboxes(k, func(row scanner) error {
			var i, of, created, registered int64
			var mailbox raw
			var disabled, quarantined bool
			err := row.Scan(&i, &of, &mailbox, &created, &registered, &disabled, &quarantined)
			if err == nil && of == int64(org) && string(mailbox) != subs[i].Mailbox {
				subs[i].OtherMailboxes = append(subs[i].OtherMailboxes, string(mailbox))
			}
			return err
		})
		return t.flush()
	})
	for i := range subs {
		slices.Sort(subs[i].OtherMailboxes)
		subs[i].OtherMailboxes = slices.Compact(subs[i].OtherMailboxes) // a row may come twice
	}
	return err
}

// query returns the query that f and a position ask for.
func (f SubscriptionFilter) query(after []string, limit int) (string, []any) {
	var q strings.Builder
	var args []any
	arg := func(v any) string {
		args = append(args, v)
		return fmt.Sprint("$", len(args))
	}
	if f.Removed {
		q.WriteString(`SELECT mailbox, app, token, created_at, registered_at, removed_at, reason, NULL FROM removed_subscriptions
			WHERE removed_at > ` + arg(time.Now().Add(-RemovedRetention).UnixMilli()))
	} else {
		q.WriteString(`SELECT mailbox, app, token, created_at, registered_at, 0, NULL, quarantine FROM subscriptions WHERE true`)
	}
	org := arg(int64(f.Organization))
	q.WriteString(` AND organization_id = ` + org + ` AND ` + isThere(org))
	if f.Mailbox != "" {
		q.WriteString(` AND mailbox = ` + arg([]byte(f.Mailbox)))
	}
	if after != nil {
		q.WriteString(` AND (mailbox, app, token) > (` + arg([]byte(after[0])) + `, ` + arg([]byte(after[1])) + `, ` + arg([]byte(after[2])) + `)`)
	}
	q.WriteString(` ORDER BY mailbox, app, token LIMIT ` + arg(int64(limit)))
	return q.String(), args
}

// table returns where the subscriptions are.
func (f SubscriptionFilter) table() string {
	if f.Removed {
		return "removed_subscriptions"
	}
	return "subscriptions"
}

// scanSubscription returns the subscription of a row, and the row's key: mailbox,
// app and token.
func (s *store) scanSubscription(row scanner, f SubscriptionFilter) (sub Subscription, key []string, err error) {
	sub.Organization = f.Organization
	var mailbox, app, token, reason, quarantine raw
	var created, registered, removed int64
	if err := row.Scan(&mailbox, &app, &token, &created, &registered, &removed, &reason, &quarantine); err != nil {
		return sub, nil, err
	}
	key = []string{string(mailbox), string(app), string(token)}
	if sub.Device, err = apns.DeviceTokenFromBytes(token); err != nil {
		return sub, key, &unreadableError{err}
	}
	sub.Quarantine = s.quarantine(quarantine)
	sub.Mailbox, sub.App, sub.RemovalReason = key[0], key[1], apns.Reason(reason)
	sub.CreatedAt, sub.RegisteredAt = fromMillis(created), fromMillis(registered)
	sub.ExpiresAt = expiry(sub.RegisteredAt, s.lifetime)
	if f.Removed {
		sub.RemovedAt = fromMillis(removed)
	}
	return sub, key, nil
}

// Mailboxes implements Registry.
func (s *store) Mailboxes(ctx context.Context, org relay.OrganizationID, after string, limit int) (mailboxes []string, err error) {
	defer s.done(ctx, opMailboxes, time.Now(), &err)
	err = s.query(ctx, `SELECT DISTINCT mailbox FROM subscriptions WHERE organization_id = $1 AND mailbox > $2 AND `+isThere(`$1`)+` ORDER BY mailbox LIMIT $3`,
		[]any{int64(org), []byte(after), int64(max(limit, 0))}, func(row scanner) error {
			var mailbox raw
			err := row.Scan(&mailbox)
			mailboxes = append(mailboxes, string(mailbox))
			return err
		})
	return mailboxes, err
}
