package registry

import (
	"context"
	"database/sql"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
)

// Run implements Registry.
func (s *SQLite) Run(ctx context.Context) error {
	purgeUntil(ctx, s.lifetime, s.purge, s.log)
	return nil
}

// purge ends and forgets what is due now.
func (s *SQLite) purge(ctx context.Context) (err error) {
	defer s.done(opPurge, time.Now(), &err)
	if err := expire(ctx, s.clock.due(), s.lifetime, s.due, s.Remove); err != nil {
		return err
	}
	for {
		var n int64
		err := s.write(ctx, func(t *tx) (err error) {
			n, err = t.exec(`DELETE FROM removed_subscriptions WHERE (organization_id, mailbox, app, token) IN
				(SELECT organization_id, mailbox, app, token FROM removed_subscriptions WHERE removed_at <= ? LIMIT ?)`,
				t.due.Add(-RemovedRetention).UnixMilli(), purgeBatch)
			return err
		})
		if err != nil || n < purgeBatch {
			return err
		}
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
