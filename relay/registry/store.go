package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// store is a Registry over a database: the rules, the statements and how rows
// are read. Both kinds of registry embed it.
type store struct {
	db         database
	metrics    *metrics
	dryMetrics *metrics // what dry runs count
	log        *slog.Logger
	lifetime   time.Duration // 0: for ever
	batch      int           // ImportBatch; tests lower it
	purgeRows  int           // removeBatch, where an organization is purged; tests lower it
	clock      *clock
	feed       feed
	groups     groups
	dry        *dryRun // the database; nil: what is changed is kept

	unreadableTold atomic.Int64 // when rows that can't be read were logged last, in Unix seconds
	closed         atomic.Bool
	changeFailed   atomic.Bool // the database did not take the last change
}

// newStore makes a store without its database.
func newStore(lifetime time.Duration, r prometheus.Registerer, log *slog.Logger) (*store, error) {
	s := &store{log: log, lifetime: max(lifetime, 0), batch: ImportBatch, purgeRows: removeBatch, clock: newClock(), groups: newGroups()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.metrics, err = newMetrics(r); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	s.dryMetrics, err = newMetrics(nil)
	return s, err
}

// OnChange implements Registry.
func (s *store) OnChange(fn func([]Change)) (cancel func()) { return s.feed.add(fn) }

// Close implements Registry.
func (s *store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.groups.wait()
	return s.db.close()
}

// change has a transaction write, and notes whether the database let it.
func (s *store) change(ctx context.Context, fn func(*tx) error) error {
	err := s.db.write(ctx, fn)
	if failed := errors.Is(s.db.unavailable(err), ErrUnavailable); err == nil || failed && ctx.Err() == nil {
		s.changeFailed.Store(failed)
	}
	return err
}

// TakesChanges implements Registry.
func (s *store) TakesChanges() bool { return !s.changeFailed.Load() }

// done records how a call went; every method of the interface defers it. ctx is
// the caller's.
func (s *store) done(ctx context.Context, op operation, start time.Time, err *error) {
	s.metrics.observe(op, start)
	if *err == nil || isDomainError(*err) && !errors.Is(*err, ErrUnavailable) {
		return
	}
	closed := s.closed.Load()
	if ctx.Err() != nil && !closed && !errors.Is(*err, ErrUnavailable) {
		if !errors.Is(*err, ctx.Err()) {
			*err = fmt.Errorf("%w: %w", ctx.Err(), *err)
		}
		return
	}
	if *err = s.db.unavailable(*err); closed && !errors.Is(*err, ErrUnavailable) {
		*err = fmt.Errorf("%w: %w", ErrUnavailable, *err)
	}
	if errors.Is(*err, ErrUnavailable) {
		s.metrics.unavailable[op].Inc()
	}
	if !closed {
		s.log.Error("registry failed", "operation", operationNames[op], "error", *err) // in the database's words; callers are told less
	}
}

// unreadableError is what is wrong with a row, not with the database that gave it.
type unreadableError struct{ error }

func (e *unreadableError) Unwrap() error { return e.error }

// passOverUnreadable passes over a row if that is what the error says, and returns
// every other error.
func (s *store) passOverUnreadable(table string, err error) error {
	if bad, ok := errors.AsType[*unreadableError](err); ok {
		s.passOver(table, bad)
		return nil
	}
	return err
}

// passOver counts a row that can't be read, which holds up no other, and logs one a
// minute.
func (s *store) passOver(table string, err error) {
	const pause = 60
	s.metrics.unreadable.Inc()
	now := time.Now().Unix()
	if told := s.unreadableTold.Load(); now-told >= pause && s.unreadableTold.CompareAndSwap(told, now) {
		s.log.Error("row passed over: it can't be read", "table", table, "error", err)
	}
}

// isDomainError reports whether an error is an answer of the registry itself.
func isDomainError(err error) bool {
	for _, sentinel := range []error{ErrUnavailable, ErrNewerSchema, ErrOrganizationNotFound, ErrOrganizationExists, ErrOrganizationRemoved,
		ErrCredentialNotFound, ErrCredentialExists, ErrCredentialRemoved, ErrSubscriptionNotFound, ErrSuperseded} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	_, invalid := errors.AsType[*InvalidError](err)
	_, limit := errors.AsType[*LimitError](err)
	_, foreign := errors.AsType[*callbackError](err)
	return invalid || limit || foreign
}

// callbackError is an error of Scan's callback, which is none of the database.
type callbackError struct{ error }

func (e *callbackError) Unwrap() error { return e.error }

// query calls each with the rows of a query outside a transaction.
func (s *store) query(ctx context.Context, query string, args []any, each func(scanner) error) error {
	return s.db.read(ctx, statement{query: query, args: args, each: each})
}

// one reads one row; none is the error missing.
func (s *store) one(ctx context.Context, missing error, query string, args []any, scan func(scanner) error) error {
	found := false
	err := s.query(ctx, query, args, func(row scanner) error {
		found = true
		return scan(row)
	})
	if err == nil && !found {
		return missing
	}
	return err
}

// Counts implements Registry.
func (s *store) Counts(ctx context.Context) (c Counts, err error) {
	defer s.done(ctx, opCounts, time.Now(), &err)
	err = s.one(ctx, sql.ErrNoRows, `SELECT count(*), CAST(coalesce(sum(mailboxes), 0) AS bigint), CAST(coalesce(sum(subscriptions), 0) AS bigint),
		(SELECT count(*) FROM credentials WHERE organization_id IN (SELECT id FROM organizations WHERE removed_at IS NULL))
		FROM organizations WHERE removed_at IS NULL`, nil, func(row scanner) error {
		return row.Scan(&c.Organizations, &c.Mailboxes, &c.Subscriptions, &c.Credentials)
	})
	return c, err
}
