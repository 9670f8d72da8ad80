package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// pgConn is a connection in a transaction. What is queued goes to the server in
// one trip, the first with BEGIN and the last with COMMIT, so that a
// transaction that reads and then writes takes two.
type pgConn struct {
	ctx    context.Context // bounds the statements; see begun. Lives as long as the transaction.
	cancel context.CancelFunc
	conn   *pgxpool.Conn
	queued []statement

	kept []keptChange // the changes, once they are kept
}

func (c *pgConn) queue(s statement) { c.queued = append(c.queued, s) }

func (c *pgConn) begun() {
	c.cancel()
	c.ctx, c.cancel = context.WithTimeout(context.WithoutCancel(c.ctx), writeTimeout)
}

func (c *pgConn) flush() error {
	if len(c.queued) == 0 {
		return nil
	}
	queued := c.queued
	c.queued = nil
	var batch pgx.Batch
	for _, s := range queued {
		query, args := s.forPostgres()
		batch.Queue(query, args...)
	}
	results := c.conn.SendBatch(c.ctx, &batch)
	for _, s := range queued {
		if err := s.take(results); err != nil {
			_ = results.Close() // the first error is the one that matters
			return err
		}
	}
	return results.Close()
}

// take reads the result of s.
func (s statement) take(results pgx.BatchResults) error {
	if s.each != nil {
		rows, err := results.Query()
		return pgEachRow(rows, err, s.each)
	}
	tag, err := results.Exec()
	if err == nil && s.done != nil {
		s.done(tag.RowsAffected())
	}
	return err
}

// write implements database.
func (p *postgresServer) write(ctx context.Context, fn func(*tx) error) error {
	wait, cancel := context.WithTimeout(ctx, callTimeout)
	conn, err := p.pool.Acquire(wait)
	if err != nil {
		cancel()
		return err
	}
	defer conn.Release()
	c := &pgConn{ctx: wait, cancel: cancel, conn: conn}
	defer func() { c.cancel() }()
	c.queue(statement{query: "BEGIN"})
	t := &tx{conn: c, dialect: &postgresDialect, now: p.clock.stamp(), due: p.clock.due()}
	if err := fn(t); err != nil {
		c.rollback()
		return err
	}
	if err := c.commit(t.changes); err != nil {
		c.rollback()
		return err
	}
	conn.Release() // to tell takes one, too: if writers kept theirs meanwhile, none might be left
	p.tell(c.ctx, c.kept, t.changes)
	return nil
}

// commit writes what is queued and ends the transaction.
func (c *pgConn) commit(changes []Change) error {
	if err := c.keepChanges(changes); err != nil {
		return err
	}
	c.begun()
	c.queue(statement{query: "COMMIT"})
	err := c.flush()
	if _, refused := errors.AsType[*pgconn.PgError](err); err != nil && !refused {
		return fmt.Errorf("commit: %w", wrapUnavailable(err)) // and not the context's, which would say that nothing was kept
	}
	return err
}

// rollback ends a transaction without its changes. A connection that can't even
// do that is given up by the pool.
func (c *pgConn) rollback() {
	if c.conn.Conn().IsClosed() || c.conn.Conn().PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	_, _ = c.conn.Exec(ctx, "ROLLBACK") // the first error is the one that matters
}
