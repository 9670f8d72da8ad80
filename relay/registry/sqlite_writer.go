package registry

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"badgerelay/relay"
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
	conn   *sql.Conn            // nil: open one
	stmts  map[string]*sql.Stmt // of conn, by their text
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
		w.conn, w.stmts = conn, make(map[string]*sql.Stmt)
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

// tx is a transaction that writes; it is used by one goroutine.
type tx struct {
	ctx context.Context // never ends: what has begun is finished. Lives as long as the transaction.
	w   *writer
	now time.Time // one time for everything in it, to the millisecond
	due time.Time // by which lifetimes have passed
	changes
}

// write runs fn in a transaction and, after the commit, tells its changes. An
// error of fn rolls back.
func (s *SQLite) write(ctx context.Context, fn func(*tx) error) error {
	if err := s.writer.take(ctx); err != nil {
		return err
	}
	defer s.writer.give()
	if err := s.writer.begin(ctx); err != nil {
		return err
	}
	t := &tx{ctx: context.WithoutCancel(ctx), w: s.writer, now: s.clock.stamp(), due: s.clock.due()}
	if err := fn(t); err != nil {
		s.writer.rollback(err)
		return err
	}
	if _, err := s.writer.conn.ExecContext(t.ctx, "COMMIT"); err != nil {
		s.writer.rollback(err)
		return fmt.Errorf("commit: %w", err)
	}
	s.feed.publish(t.changes)
	return nil
}

// stmt returns the prepared statement of a text. Texts are constants, or made
// from few numbers, so there are few.
func (t *tx) stmt(query string) (*sql.Stmt, error) {
	if stmt := t.w.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := t.w.conn.PrepareContext(t.ctx, query)
	if err != nil {
		return nil, err
	}
	t.w.stmts[query] = stmt
	return stmt, nil
}

// exec runs a statement and returns the number of rows it changed.
func (t *tx) exec(query string, args ...any) (int64, error) {
	stmt, err := t.stmt(query)
	if err != nil {
		return 0, err
	}
	res, err := stmt.ExecContext(t.ctx, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// row reads one row into dest; sql.ErrNoRows if there is none.
func (t *tx) row(query string, args []any, dest ...any) error {
	stmt, err := t.stmt(query)
	if err != nil {
		return err
	}
	return stmt.QueryRowContext(t.ctx, args...).Scan(dest...)
}

// rows calls fn for each row.
func (t *tx) rows(query string, args []any, fn func(*sql.Rows) error) error {
	stmt, err := t.stmt(query)
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(t.ctx, args...)
	return eachRow(rows, err, fn)
}

// eachRow calls fn for each row and closes rows; err is the query's.
func eachRow(rows *sql.Rows, err error, fn func(*sql.Rows) error) error {
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

// count adds to what the organization row says about its subscriptions.
func (t *tx) count(org relay.OrganizationID, mailboxes, subscriptions int64) error {
	if mailboxes == 0 && subscriptions == 0 {
		return nil
	}
	_, err := t.exec(`UPDATE organizations SET mailboxes = mailboxes + ?, subscriptions = subscriptions + ? WHERE id = ?`,
		mailboxes, subscriptions, int64(org))
	return err
}
