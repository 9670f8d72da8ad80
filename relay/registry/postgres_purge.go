package registry

import (
	"context"

	"badgerelay/relay"
)

// forget purges what relays told each other long ago.
func (p *postgresServer) forget(ctx context.Context) error {
	for _, due := range []struct {
		query string
		arg   int64
	}{
		// The newest stay whatever the clock says, because relays look at those they were told last (position.checkpoints).
		{`DELETE FROM changes WHERE ctid = ANY (ARRAY (SELECT ctid FROM changes WHERE made_at <= ` + pgNow + ` - $1
			AND id <= (SELECT max(id) FROM changes) - ` + changesKept + ` LIMIT $2))`, changeRetention.Milliseconds()},
		{`DELETE FROM relays WHERE ctid = ANY (ARRAY (SELECT ctid FROM relays WHERE seen_at <= ` + pgNow + ` - $1 LIMIT $2))`,
			presenceRetention.Milliseconds()},
		// Those that came when nobody waited any more.
		{`DELETE FROM inquiry_answers WHERE ctid = ANY (ARRAY (SELECT ctid FROM inquiry_answers WHERE answered_at <= ` + pgNow + ` - $1 LIMIT $2))`,
			inquiryLifetime.Milliseconds()},
	} {
		for n := int64(purgeBatch); n == purgeBatch; {
			var err error
			if n, err = p.forgetSome(ctx, due.query, due.arg); err != nil {
				return err
			}
		}
	}
	return nil
}

// forgetOrganization implements database: all is in tables that both have.
func (p *postgresServer) forgetOrganization(context.Context, relay.OrganizationID) error { return nil }

// forgetSome deletes up to purgeBatch rows with a query and its argument, and returns how many.
func (p *postgresServer) forgetSome(ctx context.Context, query string, arg int64) (int64, error) {
	ctx, cancel := p.call(ctx)
	defer cancel()
	tag, err := p.pool.Exec(ctx, query, arg, purgeBatch)
	return tag.RowsAffected(), err
}
