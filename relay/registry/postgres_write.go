package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"badgerelay/relay"
)

// pgTx is a transaction that writes; it is used by one goroutine.
type pgTx struct {
	ctx context.Context // bounds the statements; see begun
	tx  pgx.Tx
	now time.Time // one time for everything in it, to the millisecond
	due time.Time // by which lifetimes have passed
	changes
	madeAt int64 // of the changes, once they are kept

	cancel context.CancelFunc
}

// write runs fn in a transaction and, after the commit, tells its changes. An
// error of fn rolls back.
func (p *Postgres) write(ctx context.Context, fn func(*pgTx) error) error {
	wait, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	tx, err := p.pool.Begin(wait)
	if err != nil {
		return err
	}
	t := &pgTx{ctx: wait, tx: tx, cancel: func() {}, now: p.clock.stamp(), due: p.clock.due()}
	defer func() { t.cancel() }()
	ids, err := t.do(fn)
	if err != nil {
		p.rollback(tx)
		return err
	}
	if err := tx.Commit(t.ctx); err != nil {
		return fmt.Errorf("commit: %w", gone(err)) // and not the context's, which would say that nothing was kept
	}
	p.tell(t.ctx, ids, t.madeAt, t.changes)
	return nil
}

func (t *pgTx) do(fn func(*pgTx) error) (ids []int64, err error) {
	if err := fn(t); err != nil {
		return nil, err
	}
	t.begun()
	return t.keepChanges()
}

// begun says that the waiting is over: from here on the caller's context ends
// nothing.
func (t *pgTx) begun() {
	t.cancel()
	t.ctx, t.cancel = context.WithTimeout(context.WithoutCancel(t.ctx), writeTimeout)
}

// rollback ends a transaction without its changes. A connection that can't even
// do that is given up by the pool.
func (p *Postgres) rollback(tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	_ = tx.Rollback(ctx) // the first error is the one that matters
}

// lockOrganization reads an organization and holds its row's lock until the
// end: that is what gives its changes an order, and its counts their truth.
func (t *pgTx) lockOrganization(query string, arg any) (Organization, error) {
	o, err := scanOrganization(t.tx.QueryRow(t.ctx, query+` FOR NO KEY UPDATE`, arg))
	t.begun()
	return o, err
}

// exec runs a statement and returns the number of rows it changed.
func (t *pgTx) exec(query string, args ...any) (int64, error) {
	tag, err := t.tx.Exec(t.ctx, query, args...)
	return tag.RowsAffected(), err
}

// pgEachRow calls fn for each row and closes rows; err is the query's.
func pgEachRow(rows pgx.Rows, err error, fn func(pgx.Rows) error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (t *pgTx) rows(query string, args []any, fn func(pgx.Rows) error) error {
	rows, err := t.tx.Query(t.ctx, query, args...)
	return pgEachRow(rows, err, fn)
}

// count adds to what the organization row says about its subscriptions.
func (t *pgTx) count(org relay.OrganizationID, mailboxes, subscriptions int64) error {
	if mailboxes == 0 && subscriptions == 0 {
		return nil
	}
	_, err := t.exec(`UPDATE organizations SET mailboxes = mailboxes + $1, subscriptions = subscriptions + $2 WHERE id = $3`,
		mailboxes, subscriptions, int64(org))
	return err
}
