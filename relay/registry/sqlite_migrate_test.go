package registry

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"path"
	"testing"
	"testing/fstest"
)

// later is what a later version's migration may do to the largest table.
const later = `-- +goose Up
CREATE TABLE subscriptions_later (organization_id INTEGER NOT NULL REFERENCES organizations (id) ON DELETE CASCADE, mailbox BLOB NOT NULL,
	app BLOB NOT NULL, token BLOB NOT NULL, created_at INTEGER NOT NULL, registered_at INTEGER NOT NULL, quarantine BLOB NOT NULL,
	PRIMARY KEY (organization_id, mailbox, app, token)) STRICT, WITHOUT ROWID;
INSERT INTO subscriptions_later SELECT * FROM subscriptions;
DROP TABLE subscriptions;
ALTER TABLE subscriptions_later RENAME TO subscriptions;
`

// MigrateLater brings a file of this version up to date with a later one.
func MigrateLater(ctx context.Context, file string) (err error) {
	dir := fstest.MapFS{"00099_later.sql": {Data: []byte(later)}}
	names, err := fs.Glob(sqliteMigrations, "migrations/sqlite/*.sql")
	if err != nil {
		return err
	}
	for _, name := range names {
		data, err := sqliteMigrations.ReadFile(name)
		if err != nil {
			return err
		}
		dir[path.Base(name)] = &fstest.MapFile{Data: data}
	}
	db, err := sql.Open("sqlite", dsn(file, SQLiteConfig{}, "journal_mode(WAL)"))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	defer func() { err = errors.Join(err, db.Close()) }()
	return migrateTo(ctx, db, dir)
}

// fill makes a file with n subscriptions.
func fill(t *testing.T, path string, n int) {
	t.Helper()
	s := open(t, SQLiteConfig{Path: path})
	org := addOrg(t, s)
	rs := make([]Registration, n)
	for i := range rs {
		rs[i] = registration(i)
	}
	if _, err := s.ImportSubscriptions(t.Context(), org, rs); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Vacuum does to a file that is in use what an operator does for a backup.
func Vacuum(t *testing.T, path, into string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "VACUUM INTO ?", into); err != nil {
		t.Fatal(err)
	}
}
