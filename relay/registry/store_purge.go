package registry

import (
	"context"
	"slices"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
)

// purgeBatch is the number of rows that one transaction of the purge takes, so
// that it never keeps other writers waiting.
const purgeBatch = 500

// purgeUntil purges at every turn until ctx is done.
func (s *store) purgeUntil(ctx context.Context) {
	every := time.Hour
	if s.lifetime > 0 {
		every = min(every, max(s.lifetime/24, time.Second))
	}
	timer, sums := time.NewTicker(every), time.NewTicker(changeSumsEvery)
	defer timer.Stop()
	defer sums.Stop()
	work := s.purge
	for {
		if err := work(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("could not purge registry", "error", err)
		}
		select {
		case <-timer.C:
			work = s.purge
		case <-sums.C:
			work = s.changeSumsLeft
		case <-ctx.Done():
			return
		}
	}
}

// purge ends and forgets what is due now. Relays that do it at once do each
// other no harm.
func (s *store) purge(ctx context.Context) (err error) {
	defer s.done(ctx, opPurge, time.Now(), &err)
	if err := s.changeSumsLeft(ctx); err != nil {
		return err
	}
	if err := s.expire(ctx); err != nil {
		return err
	}
	for n := purgeBatch; n == purgeBatch; {
		if n, err = s.forgetRemoved(ctx); err != nil {
			return err
		}
	}
	if err := s.purgeOrganizations(ctx); err != nil {
		return err
	}
	return s.db.forget(ctx)
}

// expire ends the subscriptions whose lifetime has passed. It reads through all
// of them: an index by time would cost every registration more than this costs
// once an hour.
func (s *store) expire(ctx context.Context) error {
	if s.lifetime <= 0 {
		return nil
	}
	before := fromMillis(s.clock.due().Add(-s.lifetime).UnixMilli() + 1) // ends at its lifetime, not after
	last, putOff := firstRow, 0
	defer func() {
		s.metrics.putOff.Set(float64(putOff))
		if putOff > 0 {
			s.log.Error("the lifetime of many subscriptions has passed: some are kept for now, lest a wrong clock ends all of them", "kept", putOff)
		}
	}()
	for {
		found, next, err := s.expired(ctx, before, last)
		if err != nil || next == nil {
			return err
		}
		kept, err := s.endWithinBudget(ctx, found)
		if err != nil {
			return err
		}
		putOff += kept
		last = next
	}
}

// rowKey says where a row is among subscriptions, as arguments of a query:
// organization, mailbox, app and token. The token may be none.
type rowKey []any

// firstRow is before every row: no organization is 0.
var firstRow = rowKeyOf(0, nil, nil, nil)

// rowKeyOf copies what it is given, and makes empty bytes of nil ones.
func rowKeyOf(org int64, mailbox, app, token []byte) rowKey {
	return rowKey{org, append([]byte{}, mailbox...), append([]byte{}, app...), append([]byte{}, token...)}
}

// expired returns, in their order, the next subscriptions that were last
// registered before a time, and where the last of these rows is; nil: there is none.
func (s *store) expired(ctx context.Context, before time.Time, after rowKey) (due []relay.Removal, last rowKey, err error) {
	err = s.query(ctx, `SELECT organization_id, mailbox, app, token FROM subscriptions
		WHERE registered_at < $1 AND (organization_id, mailbox, app, token) > ($2, $3, $4, $5)
		ORDER BY organization_id, mailbox, app, token LIMIT $6`,
		slices.Concat([]any{before.UnixMilli()}, after, []any{int64(purgeBatch)}),
		func(row scanner) error {
			r := relay.Removal{Reason: ReasonExpired, Timestamp: before} // who renews meanwhile, stays
			var mailbox, app, token raw
			if err := row.Scan(&r.Key.Organization, &mailbox, &app, &token); err != nil {
				return err
			}
			last = rowKeyOf(int64(r.Key.Organization), mailbox, app, token)
			r.Key.Mailbox, r.App = string(mailbox), string(app)
			device, err := apns.DeviceTokenFromBytes(token)
			if err != nil {
				s.passOver("subscriptions", err)
				return nil
			}
			r.Device = device
			due = append(due, r)
			return nil
		})
	return due, last, err
}

var removedColumns = newColumns("organization_id bigint", "mailbox bytea", "app bytea", "token bytea")

// forgetRemoved forgets up to purgeBatch of those whose retention has passed, and
// returns how many.
func (s *store) forgetRemoved(ctx context.Context) (n int, err error) {
	before := s.clock.due().Add(-RemovedRetention).UnixMilli()
	k := newTable(removedColumns, 0)
	err = s.query(ctx, `SELECT organization_id, mailbox, app, token FROM removed_subscriptions WHERE removed_at <= $1 LIMIT $2`,
		[]any{before, int64(purgeBatch)}, func(row scanner) error {
			var org int64
			var mailbox, app, token raw
			err := row.Scan(&org, &mailbox, &app, &token)
			k.add(org, []byte(string(mailbox)), []byte(string(app)), []byte(string(token)))
			return err
		})
	if err != nil || k.rows() == 0 {
		return 0, err
	}
	return k.rows(), s.change(ctx, func(t *tx) error {
		t.over(k, `DELETE FROM removed_subscriptions WHERE removed_at <= $1 AND `+namedByK, before)
		return nil
	})
}
