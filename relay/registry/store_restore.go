package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"badgerelay/apns"
)

// Restore implements Registry.
func (s *store) Restore(ctx context.Context, r RestoreRequest, tell func([]Restoration) error) (err error) {
	defer func() {
		if e, ok := errors.AsType[*callbackError](err); ok {
			err = e.error
		}
	}()
	defer s.done(ctx, opRestore, time.Now(), &err)
	if err := r.validate(); err != nil {
		return err
	}
	if r.Organization != 0 {
		if _, err := s.organization(ctx, organizationByID, int64(r.Organization)); err != nil {
			return err
		}
	}
	query, args := r.query()
	last := firstRow
	for {
		var part []*removedRow
		rows := 0
		err := s.query(ctx, query, append(args, last...), func(row scanner) error {
			one, err := s.scanRemoved(row)
			if rows, last = rows+1, one.key; err != nil {
				return s.passOverUnreadable("removed_subscriptions", err)
			}
			part = append(part, one)
			return nil
		})
		if err != nil || rows == 0 {
			return err
		}
		for len(part) > 0 {
			n := 1
			for n < min(len(part), removeBatch) && part[n].Organization == part[0].Organization {
				n++
			}
			done, err := s.restore(ctx, part[:n])
			if err != nil {
				return err
			}
			if len(done) > 0 {
				if err := tell(done); err != nil {
					return &callbackError{err}
				}
			}
			part = part[n:]
		}
	}
}

// removedRow is a removed subscription as it is kept.
type removedRow struct {
	Subscription
	key        rowKey
	superseded bool
	there      bool // it still is when it is to be restored
}

func (r *removedRow) registration() Registration {
	return Registration{Mailbox: r.Mailbox, App: r.App, Device: r.Device}
}

// restoreRead is the number of rows that are read at once: PostgreSQL may look through
// the whole table each time, and sort it.
const restoreRead = 20 * removeBatch

// query returns the query for rows that r asks for, up to restoreRead of them,
// and its arguments without those of the position, which come last.
func (r RestoreRequest) query() (string, []any) {
	var q strings.Builder
	args := []any{time.Now().Add(-RemovedRetention).UnixMilli()}
	q.WriteString(`SELECT organization_id, mailbox, app, token, created_at, registered_at, removed_at, reason, superseded
		FROM removed_subscriptions WHERE removed_at > $1`)
	where := func(condition string, value any) {
		args = append(args, value)
		fmt.Fprintf(&q, " AND %s $%d", condition, len(args))
	}
	if r.Organization != 0 {
		where("organization_id =", int64(r.Organization))
	}
	if r.Mailbox != "" {
		where("mailbox =", []byte(r.Mailbox))
	}
	if r.App != "" {
		where("app =", []byte(r.App))
	}
	if r.Reason != "" {
		where("reason =", []byte(r.Reason))
	}
	if !r.From.IsZero() {
		where("removed_at >=", r.From.UnixMilli())
	}
	if !r.Until.IsZero() {
		where("removed_at <", r.Until.UnixMilli())
	}
	n := len(args)
	fmt.Fprintf(&q, ` AND (organization_id, mailbox, app, token) > ($%d, $%d, $%d, $%d)
		ORDER BY organization_id, mailbox, app, token LIMIT %d`, n+1, n+2, n+3, n+4, restoreRead)
	return q.String(), args[:n:n]
}

// scanRemoved returns the subscription of a row; with an error it has the row's key
// alone.
func (s *store) scanRemoved(row scanner) (r *removedRow, err error) {
	r = &removedRow{}
	var mailbox, app, token, reason raw
	var created, registered, removed int64
	if err := row.Scan(&r.Organization, &mailbox, &app, &token, &created, &registered, &removed, &reason, &r.superseded); err != nil {
		return r, err
	}
	r.key = slices.Clip(rowKeyOf(int64(r.Organization), mailbox, app, token))
	if r.Device, err = apns.DeviceTokenFromBytes(token); err != nil {
		return r, &unreadableError{err}
	}
	r.Mailbox, r.App, r.RemovalReason = string(mailbox), string(app), apns.Reason(reason)
	r.CreatedAt, r.RegisteredAt, r.RemovedAt = fromMillis(created), fromMillis(registered), fromMillis(removed)
	r.ExpiresAt = expiry(r.RegisteredAt, s.lifetime)
	return r, nil
}

// restore restores rows of one organization in a transaction. What is not among
// the removed ones any more is not in the result.
func (s *store) restore(ctx context.Context, rows []*removedRow) (done []Restoration, err error) {
	rs, qs := make([]Registration, len(rows)), make([]request, len(rows))
	for i, row := range rows {
		rs[i] = row.registration()
		qs[i] = rs[i].request()
	}
	err = s.change(ctx, func(t *tx) error {
		done = done[:0]
		t.readRemoved(rows)
		p, err := s.readSubscribeTx(t, rows[0].Organization, qs)
		if err != nil {
			return err
		}
		for i, row := range rows {
			if row.there {
				done = append(done, Restoration{p.org.Name, row.Subscription, p.restoreRemoved(rs[i], row)})
			}
		}
		t.apply(p)
		return nil
	})
	if errors.Is(err, ErrOrganizationNotFound) { // which was removed since
		err = nil
	}
	return done, err
}

func (p *subscribeTx) restoreRemoved(r Registration, row *removedRow) error {
	if row.superseded {
		return ErrSuperseded
	}
	return p.restore(r, row.CreatedAt)
}

var readRemovedColumns = newColumns("organization_id bigint", "mailbox bytea", "app bytea", "token bytea", "removed_at bigint")

// readRemoved queues the reading of what has become of rows meanwhile.
func (t *tx) readRemoved(rows []*removedRow) {
	k := newTable(readRemovedColumns, len(rows))
	for _, row := range rows {
		row.there = false
		k.add(append(row.key, row.RemovedAt.UnixMilli())...)
	}
	t.queue(statement{k: k, query: `SELECT k.i, s.superseded FROM k ` +
		t.look("removed_subscriptions", `s.organization_id = k.organization_id AND s.mailbox = k.mailbox AND s.app = k.app AND s.token = k.token
			AND s.removed_at = k.removed_at`), each: func(row scanner) error {
		var i int64
		var superseded bool
		if err := row.Scan(&i, &superseded); err != nil {
			return err
		}
		rows[i].there, rows[i].superseded = true, superseded
		return nil
	}})
}

func (r RestoreRequest) validate() error {
	if r.Mailbox != "" {
		if err := validateMailbox(r.Mailbox); err != nil {
			return err
		}
	}
	if r.App != "" {
		if err := validateApp("app", r.App); err != nil {
			return err
		}
	}
	if !r.From.IsZero() && !r.Until.IsZero() && !r.From.Before(r.Until) {
		return &InvalidError{"removed_until", "is not after the time from which they ended"}
	}
	return nil
}
