package registry

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// errDatabaseClosed is what calls after Close end in.
var errDatabaseClosed = errors.New("database is closed")

// writer is the one connection that writes.
type writer struct {
	db *sql.DB

	// turn holds a token while nobody writes. Who took it owns what follows,
	// for a whole transaction and its changes: that is what makes the change
	// feed follow the order of commits. It is a channel and no mutex because it
	// is held over I/O and because the waiting must end with a context.
	turn   chan struct{}
	closed bool
	conn   *sql.Conn  // nil: open one
	stmts  statements // of conn
}

func newWriter(db *sql.DB) *writer {
	w := &writer{db: db, turn: make(chan struct{}, 1)}
	w.turn <- struct{}{}
	return w
}

func (w *writer) take(ctx context.Context) error {
	select {
	case <-w.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *writer) give() { w.turn <- struct{}{} }

func (w *writer) close() error {
	<-w.turn
	defer w.give()
	w.closed = true
	w.drop()
	return w.db.Close()
}

// drop closes the connection; the next transaction opens another.
func (w *writer) drop() {
	for _, stmt := range w.stmts {
		_ = stmt.Close() // goes with its connection
	}
	if w.conn != nil {
		// Close alone would keep it for the next transaction.
		_ = w.conn.Raw(func(any) error { return driver.ErrBadConn }) // it says no more than that
		_ = w.conn.Close()                                           // nothing uncommitted is in it
	}
	w.conn, w.stmts = nil, nil
}

// begin starts a transaction that holds SQLite's write lock. ctx bounds the
// waiting for it.
func (w *writer) begin(ctx context.Context) error {
	if w.closed {
		return errDatabaseClosed
	}
	if w.conn == nil {
		conn, err := w.db.Conn(ctx)
		if err != nil {
			return err
		}
		w.conn, w.stmts = conn, make(statements)
	}
	_, err := w.conn.ExecContext(ctx, "BEGIN IMMEDIATE")
	if err != nil {
		w.rollback(err) // ctx may have ended after it had begun
	}
	return err
}

// rollback ends the transaction that failed with cause, if there is one. A
// connection that can't even do that is given up, and so is one that can't write.
func (w *writer) rollback(cause error) {
	if _, err := w.conn.ExecContext(context.Background(), "ROLLBACK"); err != nil && unusable(err) || readOnly(cause) {
		w.drop()
	}
}

// unusable reports whether a failed ROLLBACK leaves the connection's state in
// doubt. "No transaction is active" is SQLITE_ERROR: some failures have rolled
// back already (SQLite, "Transaction", section 3.1, read 2026-11).
func unusable(err error) bool {
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.Is(unavailable(err), ErrUnavailable)
}

// readOnly reports whether SQLite calls the connection read-only. One that was
// opened while the file could only be read stays so when the file has become
// writable again (SQLite, "Opening A New Database Connection", read 2026-11).
func readOnly(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == sqlite3.SQLITE_READONLY
}

// sqliteConn is the writer in a transaction. It does statements at once when
// they are flushed.
type sqliteConn struct {
	ctx       context.Context // never ends: what has begun is finished. Lives as long as the transaction.
	file      *sqliteFile
	queued    []statement
	committed []func() // called in their order after the commit
}

func (c *sqliteConn) queue(s statement) { c.queued = append(c.queued, s) }

func (c *sqliteConn) begun() {} // with the transaction

func (c *sqliteConn) flush() error {
	queued := c.queued
	c.queued = nil
	for _, s := range queued {
		err := s.run(c.ctx, func(s statement, size int) (*sql.Stmt, error) {
			return c.file.writer.stmts.prepare(c.ctx, c.file.writer.conn, s, size)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// write implements database.
func (f *sqliteFile) write(ctx context.Context, fn func(*tx) error) error {
	if err := f.transact(ctx, func(t *tx, _ *sqliteConn) error { return fn(t) }); err != nil || !f.index.due.Load() {
		return err
	}
	// What was asked for is done, so that this is no failure of it.
	if err := f.mergeRecent(context.WithoutCancel(ctx)); err != nil {
		f.log.Warn("index of devices could not be merged", "error", err)
	}
	return nil
}

func (f *sqliteFile) transact(ctx context.Context, fn func(*tx, *sqliteConn) error) error {
	if err := f.writer.take(ctx); err != nil {
		return err
	}
	defer f.writer.give()
	if err := f.writer.begin(ctx); err != nil {
		return err
	}
	if err := f.index.load(ctx, f.writer.conn); err != nil {
		f.writer.rollback(err)
		return err
	}
	c := &sqliteConn{ctx: context.WithoutCancel(ctx), file: f}
	t := &tx{conn: c, dialect: &sqliteDialect, now: f.clock.stamp(), due: f.clock.due()}
	err := fn(t, c)
	if err == nil {
		err = c.flush()
	}
	if err != nil {
		f.writer.rollback(err)
		return err
	}
	if _, err := f.writer.conn.ExecContext(c.ctx, "COMMIT"); err != nil {
		f.writer.rollback(err)
		f.index.recent = nil // it may have been kept, as the log will tell
		return fmt.Errorf("commit: %w", err)
	}
	for _, fn := range c.committed {
		fn()
	}
	f.index.due.Store(f.index.entries > f.index.mergeAt && !f.index.merging)
	f.feed.publish(t.changes)
	return nil
}

// read implements database.
func (f *sqliteFile) read(ctx context.Context, s statement) error {
	return s.run(ctx, func(s statement, size int) (*sql.Stmt, error) {
		f.mu.Lock()
		defer f.mu.Unlock() // over the reading of a new statement's text, once
		return f.stmts.prepare(ctx, f.readers, s, size)
	})
}

// hintSums implements database: there is one relay.
func (f *sqliteFile) hintSums() {}
