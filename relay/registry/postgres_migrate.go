package registry

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// Their authors' rules are in migrations/README.md.
//
//go:embed migrations/postgres/*.sql
var postgresMigrations embed.FS

// migrationLock is the key of the advisory lock; any number that nobody else
// is likely to take.
const migrationLock = 0x6261646765 // "badge"

// migratePostgres brings the schema up to date; forward only. Of several relays
// that start at once, one does it and the others wait.
func migratePostgres(ctx context.Context, pool *pgxpool.Pool) error {
	dir, err := fs.Sub(postgresMigrations, "migrations/postgres")
	if err != nil {
		return err
	}
	return migratePostgresTo(ctx, pool, dir)
}

func migratePostgresTo(ctx context.Context, pool *pgxpool.Pool, dir fs.FS) (err error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, migrationLock); err != nil {
		return fmt.Errorf("lock for migration: %w", err)
	}
	defer func() {
		// Should this fail, the lock goes with the connection.
		free, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if _, unlockErr := conn.Exec(free, `SELECT pg_advisory_unlock($1)`, migrationLock); unlockErr != nil {
			_ = conn.Conn().Close(free) // it is broken already
		}
	}()
	if err := checkTables(ctx, conn); err != nil {
		return err
	}
	db := stdlib.OpenDBFromPool(pool)
	defer func() { err = errors.Join(err, db.Close()) }() // the pool stays open
	p, err := goose.NewProvider(goose.DialectPostgres, db, dir,
		goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	current, known, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if current > known {
		if err := compatible(ctx, pool, current, known); err != nil {
			return err
		}
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate schema from version %d to %d: %w", current, known, err)
	}
	return checkPostgresColumns(ctx, pool)
}

// checkPostgresColumns returns an *InvalidError if the database has not all that the
// program uses.
func checkPostgresColumns(ctx context.Context, pool *pgxpool.Pool) error {
	found := make(map[string]bool)
	rows, err := pool.Query(ctx, `SELECT c.relname || '.' || a.attname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_attribute a ON a.attrelid = c.oid WHERE n.nspname = current_schema() AND a.attnum > 0 AND NOT a.attisdropped`)
	err = pgEachRow(rows, err, func(row scanner) error {
		var name string
		err := row.Scan(&name)
		found[name] = true
		return err
	})
	if err != nil {
		return fmt.Errorf("read tables: %w", err)
	}
	return checkColumns("url", found, postgresSchema)
}

// checkTables returns an *InvalidError for a database of another program. What
// extensions have brought is nobody's.
func checkTables(ctx context.Context, on interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) error {
	var found tables
	err := on.QueryRow(ctx, `SELECT count(*), to_regclass('goose_db_version') IS NOT NULL,
		to_regclass('organizations') IS NOT NULL AND to_regclass('subscriptions') IS NOT NULL
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p')
		AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')`).
		Scan(&found.all, &found.versioned, &found.ours)
	var version int64
	if err == nil && found.versioned {
		err = on.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&version)
	}
	if err != nil {
		return fmt.Errorf("read tables: %w", err)
	}
	if found.ours && version == 0 {
		return &InvalidError{"url", versionless}
	}
	if found.foreign(version) {
		return &InvalidError{"url", "leads to a database that holds tables of another program: give the relay a database of its own, or a schema (search_path)"}
	}
	return nil
}

// checkSchema returns ErrNewerSchema where a migration would.
func checkSchema(ctx context.Context, pool *pgxpool.Pool) error {
	files, err := fs.Glob(postgresMigrations, "migrations/postgres/*.sql")
	if err != nil {
		return err
	}
	var current int64
	if err := pool.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version`).Scan(&current); err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	known := int64(len(files)) // they are numbered from 1
	if current > known {
		if err := compatible(ctx, pool, current, known); err != nil {
			return err
		}
	}
	if current < known {
		return nil // the rest comes with the migration
	}
	return checkPostgresColumns(ctx, pool)
}

// compatible returns ErrNewerSchema unless programs that know a version can
// work with the newer one that is there. So relays can be upgraded one by
// one, and the old version be brought back.
func compatible(ctx context.Context, pool *pgxpool.Pool, current, known int64) error {
	var oldest int64
	if err := pool.QueryRow(ctx, `SELECT max(oldest) FROM schema_compatibility`).Scan(&oldest); err != nil {
		return fmt.Errorf("read schema compatibility: %w", err)
	}
	if known >= oldest {
		return nil
	}
	return fmt.Errorf("%w: its schema is version %d and wants programs that know version %d, this one knows %d",
		ErrNewerSchema, current, oldest, known)
}
