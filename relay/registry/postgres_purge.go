package registry

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"badgerelay/apns"
	"badgerelay/relay"
)

// purge ends and forgets what is due now. Relays that do it at once do each
// other no harm.
func (p *Postgres) purge(ctx context.Context) (err error) {
	defer p.done(ctx, opPurge, time.Now(), &err)
	if err := expire(ctx, p.clock.due(), p.lifetime, p.due, p.Remove); err != nil {
		return err
	}
	for _, due := range []struct {
		query string
		arg   int64
	}{
		{`DELETE FROM removed_subscriptions WHERE ctid = ANY (ARRAY (SELECT ctid FROM removed_subscriptions WHERE removed_at <= $1 LIMIT $2))`,
			p.clock.due().Add(-RemovedRetention).UnixMilli()},
		// The newest stay whatever the clock says, because relays look at those they were told last (checkMarks).
		{`DELETE FROM changes WHERE ctid = ANY (ARRAY (SELECT ctid FROM changes WHERE made_at <= ` + pgNow + ` - $1
			AND id <= (SELECT max(id) FROM changes) - ` + changesKept + ` LIMIT $2))`, changeRetention.Milliseconds()},
		{`DELETE FROM relays WHERE ctid = ANY (ARRAY (SELECT ctid FROM relays WHERE seen_at <= ` + pgNow + ` - $1 LIMIT $2))`,
			presenceRetention.Milliseconds()},
	} {
		for {
			n, err := p.forget(ctx, due.query, due.arg)
			if err != nil {
				return err
			}
			if n < purgeBatch {
				break
			}
		}
	}
	return nil
}

// forget deletes up to purgeBatch rows with a query and its argument, and returns how many.
func (p *Postgres) forget(ctx context.Context, query string, arg int64) (int64, error) {
	ctx, cancel := p.call(ctx)
	defer cancel()
	tag, err := p.pool.Exec(ctx, query, arg, purgeBatch)
	return tag.RowsAffected(), err
}

// due returns, in their order, the next subscriptions that were last registered
// before a time.
func (p *Postgres) due(ctx context.Context, before time.Time, after relay.Removal) (due []relay.Removal, err error) {
	ctx, cancel := p.call(ctx)
	defer cancel()
	rows, err := p.pool.Query(ctx, `SELECT organization_id, mailbox, app, token FROM subscriptions
		WHERE registered_at < $1 AND (organization_id, mailbox, app, token) > ($2, $3, $4, $5)
		ORDER BY organization_id, mailbox, app, token LIMIT $6`,
		before.UnixMilli(), int64(after.Key.Organization), []byte(after.Key.Mailbox), []byte(after.App), after.Device.AppendRaw([]byte{}), purgeBatch)
	err = pgEachRow(rows, err, func(rows pgx.Rows) error {
		r := relay.Removal{Reason: ReasonExpired, Timestamp: before} // who renews meanwhile, stays
		raw := rows.RawValues()
		r.Key = relay.MailboxKey{Organization: relay.OrganizationID(pgInt64(raw[0])), Mailbox: string(raw[1])}
		r.App = string(raw[2])
		r.Device, err = apns.DeviceTokenFromBytes(raw[3])
		due = append(due, r)
		return err
	})
	return due, err
}
