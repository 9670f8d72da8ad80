package registry

import (
	"context"
	"database/sql"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
)

// purgeBatch is the number of rows that one transaction of the purge takes, so
// that it never keeps other writers waiting.
const purgeBatch = 500

// Run implements Registry.
func (s *SQLite) Run(ctx context.Context) error {
	every := time.Hour
	if s.lifetime > 0 {
		every = min(every, max(s.lifetime/24, time.Second))
	}
	timer := time.NewTicker(every)
	defer timer.Stop()
	for {
		if err := s.purge(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("could not purge registry", "error", err)
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// purge ends and forgets what is due now.
func (s *SQLite) purge(ctx context.Context) (err error) {
	defer s.done(opPurge, time.Now(), &err)
	if err := s.expire(ctx); err != nil {
		return err
	}
	for {
		var n int64
		err := s.write(ctx, func(t *tx) (err error) {
			n, err = t.exec(`DELETE FROM removed_subscriptions WHERE (organization_id, mailbox, app, token) IN
				(SELECT organization_id, mailbox, app, token FROM removed_subscriptions WHERE removed_at <= ? LIMIT ?)`,
				t.now.Add(-RemovedRetention).UnixMilli(), purgeBatch)
			return err
		})
		if err != nil || n < purgeBatch {
			return err
		}
	}
}

// expire ends the subscriptions whose lifetime has passed. It reads through all
// of them: an index by time would cost every registration more than this
// costs once an hour.
func (s *SQLite) expire(ctx context.Context) error {
	if s.lifetime <= 0 {
		return nil
	}
	before := fromMillis(time.Now().Add(-s.lifetime).UnixMilli() + 1) // ends at its lifetime, not after
	var after relay.Removal
	for {
		due, err := s.due(ctx, before, after)
		if err != nil || len(due) == 0 {
			return err
		}
		if _, err := s.Remove(ctx, due); err != nil {
			return err
		}
		after = due[len(due)-1]
	}
}

// due returns, in their order, the next subscriptions that were last registered
// before a time.
func (s *SQLite) due(ctx context.Context, before time.Time, after relay.Removal) (due []relay.Removal, err error) {
	rows, err := s.readers.QueryContext(ctx, `SELECT organization_id, mailbox, app, token FROM subscriptions
		WHERE registered_at < ? AND (organization_id, mailbox, app, token) > (?, ?, ?, ?)
		ORDER BY organization_id, mailbox, app, token LIMIT ?`,
		before.UnixMilli(), int64(after.Key.Organization), after.Key.Mailbox, after.App, after.Device.AppendRaw([]byte{}), purgeBatch)
	err = eachRow(rows, err, func(rows *sql.Rows) error {
		r := relay.Removal{Reason: ReasonExpired, Timestamp: before} // who renews meanwhile, stays
		var token sql.RawBytes
		if err := rows.Scan(&r.Key.Organization, &r.Key.Mailbox, &r.App, &token); err != nil {
			return err
		}
		r.Device, err = apns.DeviceTokenFromBytes(token)
		due = append(due, r)
		return err
	})
	return due, err
}
