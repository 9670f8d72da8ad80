package registry

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
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
	if err := migrateTo(ctx, db, dir); err != nil {
		return err
	}
	return checkSQLiteColumns(ctx, db)
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

// checkSQLiteColumns returns an *InvalidError if db has not all that the program uses.
func checkSQLiteColumns(ctx context.Context, db *sql.DB) error {
	found := make(map[string]bool)
	rows, err := db.QueryContext(ctx, `SELECT t.name || '.' || c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table'`)
	err = eachRow(rows, err, func(row scanner) error {
		var name string
		err := row.Scan(&name)
		found[name] = true
		return err
	})
	if err != nil {
		return fmt.Errorf("read tables: %w", err)
	}
	return checkColumns("path", found, sqliteSchema)
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
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code()&0xff == sqlite3.SQLITE_NOTADB {
		return 0, &InvalidError{"path", "is no SQLite database; it is the wrong file, or a damaged one"}
	}
	if err != nil {
		return 0, err
	}
	switch {
	case found.ours && version == 0:
		err = &InvalidError{"path", versionless}
	case found.foreign(version):
		err = &InvalidError{"path", "is a database of another program"}
	}
	return version, err
}

// versionless is wrong with tables of a registry that nobody can tell the age of.
const versionless = "leads to tables of a registry without their version (goose_db_version): restore a whole backup"

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
