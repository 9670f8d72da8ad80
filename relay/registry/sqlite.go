package registry

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLiteConfig says where the file is and how to treat it. Nothing of it can be
// reloaded.
type SQLiteConfig struct {
	// Path of the database file. It is created with mode 0600, in a directory
	// that exists; SQLite keeps Path-wal and Path-shm beside it, and the
	// migrations are guarded by Path.lock. What is there is given this mode, or
	// refused where that is not possible. Temporary data stays in memory.
	// Required.
	Path string

	// SubscriptionLifetime is how long a subscription lives without being
	// renewed. Zero or negative: for ever. It is applied by Run, so it may take up to
	// a 24th of itself, and at most an hour, longer.
	SubscriptionLifetime time.Duration

	// BusyTimeout is how long a change waits for another process that holds the
	// file locked. Zero: 5 s. Negative: not at all.
	BusyTimeout time.Duration

	// Readers is the greatest number of connections that read. Zero or
	// negative: one a CPU, at least 2.
	Readers int

	Registerer prometheus.Registerer // for metrics; nil: none
	Logger     *slog.Logger          // nil: silent
}

func (c SQLiteConfig) busyTimeout() time.Duration {
	if c.BusyTimeout == 0 {
		return 5 * time.Second
	}
	return max(c.BusyTimeout, 0)
}

func (c SQLiteConfig) readers() int {
	if c.Readers <= 0 {
		return max(2, runtime.GOMAXPROCS(0))
	}
	return c.Readers
}

// SQLite is a Registry in one file, for one relay. Other processes may read the
// file meanwhile, but what they write does not reach the change feed.
type SQLite struct {
	*store
	*sqliteFile
}

var _ Registry = (*SQLite)(nil)

// OpenSQLite opens or creates the database and brings its schema up to date. It
// starts nothing; the caller closes it. Errors wrap ErrNewerSchema or
// ErrUnavailable where these apply.
func OpenSQLite(ctx context.Context, c SQLiteConfig) (*SQLite, error) {
	if c.Path == "" {
		return nil, &InvalidError{"path", "is missing"}
	}
	path, err := realPath(c.Path)
	if err != nil {
		return nil, fmt.Errorf("open database: %w: %w", ErrUnavailable, err)
	}
	s, err := newStore(c.SubscriptionLifetime, c.Registerer, c.Logger)
	if err != nil {
		return nil, err
	}
	named, err := filepath.Abs(c.Path)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	f := &sqliteFile{store: s, named: named, index: deviceIndex{least: leastRecent, step: mergeStep}}
	s.db = f
	if err := f.open(ctx, path, c); err != nil {
		_ = s.Close() // the first error is the one that matters
		return nil, fmt.Errorf("open database: %w", f.unavailable(err))
	}
	return &SQLite{s, f}, nil
}

// Run implements Registry.
func (s *SQLite) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { // ends with ctx, or when it is done
		select {
		case <-time.After(learnDelay):
		case <-ctx.Done():
			return
		}
		if err := s.fillFilter(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("index of devices can't be read", "error", err) // registrations look into it, one by one
		}
	})
	s.purgeUntil(ctx)
	wg.Wait()
	return nil
}

// sqliteFile is the database of a SQLite.
type sqliteFile struct {
	*store  // for its clock and its feed
	writer  *writer
	readers *sql.DB
	index   deviceIndex
	named   string      // the path as it was given, which a link may lead elsewhere later
	opened  fs.FileInfo // what was there

	mu    sync.Mutex // guards stmts
	stmts statements
}

func (f *sqliteFile) open(ctx context.Context, path string, c SQLiteConfig) error {
	if err := createFile(ctx, path); err != nil {
		return err
	}
	// What is not ours keeps its mode.
	if _, err := c.Check(ctx); isMisconfigured(err) {
		return err
	}
	if err := f.closeToOthers(path); err != nil {
		return err
	}
	// A checkpoint at 64 MiB instead of 4 writes a page that changed often once,
	// which halves the writing of a large import.
	db, err := sql.Open("sqlite", dsn(path, c, "journal_mode(WAL)", "cache_size(-131072)", "wal_autocheckpoint(16384)", "temp_store(MEMORY)", "journal_size_limit(67108864)"))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	f.writer = newWriter(db)
	if err := migrate(ctx, path, db); err != nil {
		return err
	}
	if f.readers, err = sql.Open("sqlite", dsn(path, c, "query_only(1)", "cache_size(-16384)", "temp_store(MEMORY)")); err != nil {
		return err
	}
	f.readers.SetMaxOpenConns(c.readers())
	f.readers.SetMaxIdleConns(c.readers())
	f.stmts = make(statements)
	if err := f.readers.PingContext(ctx); err != nil {
		return err
	}
	f.opened, err = os.Stat(f.named)
	return err
}

// InPlace returns an error if the file that is open is no longer the one at its path:
// somebody has put a backup there, or removed it, and what is changed now will be lost.
func (f *sqliteFile) InPlace() error {
	found, err := os.Stat(f.named)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s was removed while it was in use; start anew, on a backup", f.named)
	case err == nil && !os.SameFile(found, f.opened):
		return fmt.Errorf("%s was replaced while another file was in use; start anew", f.named)
	}
	return nil // of a disk that is away the statements tell
}

func (f *sqliteFile) dialect() *dialect { return &sqliteDialect }

func (f *sqliteFile) close() error {
	var errs []error
	if f.writer != nil {
		errs = append(errs, f.writer.close())
	}
	if f.readers != nil {
		errs = append(errs, f.readers.Close())
	}
	return errors.Join(errs...)
}

// dsn returns the driver's address of the file. busy_timeout comes first, so
// that the other settings wait for locks too; synchronous=FULL makes each
// commit reach the disk (SQLite, "Pragma statements", read 2026-11).
func dsn(path string, c SQLiteConfig, pragmas ...string) string {
	q := url.Values{"_pragma": append([]string{
		fmt.Sprintf("busy_timeout(%d)", c.busyTimeout().Milliseconds()),
		"synchronous(FULL)",
		"foreign_keys(1)",
	}, pragmas...)}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

// unavailable makes err wrap ErrUnavailable if the database could not be used,
// which may pass. A file that is not a database, or damaged, is not that.
func (*sqliteFile) unavailable(err error) error { return unavailable(err) }

func unavailable(err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if errors.Is(err, sql.ErrConnDone) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, errDatabaseClosed) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch e.Code() & 0xff { // the rest of an extended code is detail
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL,
		sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM:
		if hint := hints[e.Code()]; hint != "" {
			return fmt.Errorf("%w: %w: %s", ErrUnavailable, err, hint)
		}
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// hints say what is behind codes whose words say little.
var hints = map[int]string{
	sqlite3.SQLITE_IOERR_SHMSIZE: "there may be no room on the disk for the file -shm",
	sqlite3.SQLITE_IOERR_SHMOPEN: "the file -shm can't be opened or made",
	sqlite3.SQLITE_CANTOPEN:      "the file, or those with -wal and -shm beside it, can't be opened or made",
}
