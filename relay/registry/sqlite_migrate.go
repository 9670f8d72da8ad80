package registry

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/gofrs/flock"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/sqlite/*.sql
var sqliteMigrations embed.FS

// migrate brings the schema of db up to date; forward only. Of several processes
// that open the file at once, one does it and the others wait.
func migrate(ctx context.Context, path string, db *sql.DB) (err error) {
	unlock, err := lockFile(ctx, path+".lock")
	if err != nil {
		return fmt.Errorf("lock for migration: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	dir, err := fs.Sub(sqliteMigrations, "migrations/sqlite")
	if err != nil {
		return err
	}
	return migrateTo(ctx, db, dir)
}

// migrateTo applies the migrations of dir.
func migrateTo(ctx context.Context, db *sql.DB, dir fs.FS) error {
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir,
		goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := sqliteVersion(ctx, db); err != nil {
		return err
	}
	current, known, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if current > known {
		return newerSchema(current, known)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate schema from version %d to %d: %w", current, known, err)
	}
	return nil
}

func newerSchema(current, known int64) error {
	return fmt.Errorf("%w: its schema is version %d, this program knows version %d", ErrNewerSchema, current, known)
}

// sqliteVersion returns the schema's version, 0 for an empty file. A database of
// another program is an *InvalidError.
func sqliteVersion(ctx context.Context, db *sql.DB) (version int64, err error) {
	var found tables
	err = db.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE name = 'goose_db_version') > 0,
		count(*) FILTER (WHERE name IN ('organizations', 'subscriptions')) = 2 FROM sqlite_schema WHERE type = 'table'
		AND name NOT LIKE 'sqlite~_%' ESCAPE '~'`).Scan(&found.all, &found.versioned, &found.ours)
	if err == nil && found.versioned {
		err = db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&version)
	}
	if err == nil && found.foreign(version) {
		err = &InvalidError{"path", "is a database of another program"}
	}
	return version, err
}

// tables are those of a database.
type tables struct {
	all       int64
	versioned bool // there is a schema version, which other programs may keep in the same table
	ours      bool // those that every version has are there
}

// foreign reports whether they are another program's.
func (t tables) foreign(version int64) bool {
	if version > 0 {
		return !t.ours
	}
	return t.all > 1 || t.all == 1 && !t.versioned // the version of an empty database comes first
}

// lockFile takes an exclusive lock that the system releases with the process.
// The file stays: removing it would let two holders have one each.
func lockFile(ctx context.Context, path string) (unlock func() error, err error) {
	const retry = 20 * time.Millisecond // such a lock can't be waited for with a context
	lock := flock.New(path, flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, retry); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return lock.Unlock, nil
}
