package registry

import (
	"database/sql"
	"io/fs"
	"testing"

	"github.com/pressly/goose/v3"
)

// TestMigrateDevices opens a file of the schema before the table of devices.
func TestMigrateDevices(t *testing.T) {
	path := newPath(t)
	const n = 3000
	fillVersion2(t, path, n)
	s := open(t, SQLiteConfig{Path: path})
	wantSubscriptions(t, s, n)
	o, err := s.GetOrganization(t.Context(), "fabrikam.com")
	if err != nil {
		t.Fatal(err)
	}
	moved := registration(7)
	moved.Mailbox = "elsewhere"
	got, err := s.Subscribe(t.Context(), o.ID, moved)
	if err != nil || got.LeftMailbox != "user7" {
		t.Errorf("got %+v, %v; want the device to leave the mailbox it was on before", got, err)
	}
	wantSubscriptions(t, s, n)
}

// fillVersion2 makes a file of schema version 2 with n subscriptions.
func fillVersion2(t *testing.T, path string, n int) {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path, SQLiteConfig{}, "journal_mode(WAL)"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	dir, err := fs.Sub(sqliteMigrations, "migrations/sqlite")
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO organizations (name, enabled, apps, max_mailboxes, max_subscriptions, max_streams, metadata_url, created_at, mailboxes, subscriptions)
		VALUES ('fabrikam.com', 1, '[]', 0, 0, 0, '', 1, ?1, ?1)`, n)
	exec("BEGIN")
	for i := range n {
		r := registration(i)
		exec(`INSERT INTO subscriptions VALUES (1, ?, ?, ?, 1, 1)`, r.Mailbox, r.App, r.Device.AppendRaw(nil))
	}
	exec("COMMIT")
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
