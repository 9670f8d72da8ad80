package registry

import (
	"errors"
	"io/fs"
	"path"
	"testing"
	"testing/fstest"

	"badgerelay/relay"
	"badgerelay/relay/registry/postgrestest"
)

// TestPostgresMigrationEnds has the server end a migration in its midst. Nothing of it
// is there, the program before works on, and the next attempt goes through.
func TestPostgresMigrationEnds(t *testing.T) {
	server := postgrestest.Start(t)
	database := server.Database()
	p, err := OpenPostgres(t.Context(), PostgresConfig{URL: server.URL(database)})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	o, err := p.AddOrganization(t.Context(), NewOrganization{Name: "fabrikam.com"})
	if err != nil {
		t.Fatal(err)
	}
	dir := fstest.MapFS{}
	files, err := fs.ReadDir(postgresMigrations, "migrations/postgres")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := postgresMigrations.ReadFile(path.Join("migrations/postgres", f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		dir[f.Name()] = &fstest.MapFile{Data: data}
	}
	next := func(last string) {
		const change = "-- +goose Up\nALTER TABLE organizations ADD COLUMN later bigint;\nCREATE TABLE later (id bigint);\n"
		dir["90000_later.sql"] = &fstest.MapFile{Data: []byte(change + last)}
	}
	next("SELECT pg_sleep(60);")
	failed := make(chan error, 1)
	go func() { failed <- migratePostgresTo(t.Context(), p.pool, dir) }()
	for ended := false; !ended; { // a real server, which no channel tells of
		err := p.pool.QueryRow(t.Context(), `SELECT coalesce(bool_or(pg_terminate_backend(pid)), false) FROM pg_stat_activity
			WHERE wait_event = 'PgSleep'`).Scan(&ended)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := <-failed; !errors.Is(wrapUnavailable(err), ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	var left int
	if err := p.pool.QueryRow(t.Context(), `SELECT count(*) FROM information_schema.columns WHERE column_name = 'later' OR table_name = 'later'`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d columns of the migration are there, %v; want none", left, err)
	}
	if _, err := p.Subscribe(t.Context(), o.ID, registration(1)); err != nil {
		t.Error(err)
	}
	next("SELECT 1;")
	if err := migratePostgresTo(t.Context(), p.pool, dir); err != nil {
		t.Error(err)
	}
	if found, err := p.Lookup(t.Context(), []relay.MailboxKey{{Organization: o.ID, Mailbox: registration(1).Mailbox}}); err != nil || len(found[0]) != 1 {
		t.Errorf("got %v, %v; want the subscription", found, err)
	}
}

// TestPostgresOlderProgramBeside has a program that knows each earlier version
// of the schema come to a database that a newer one has brought up to date.
func TestPostgresOlderProgramBeside(t *testing.T) {
	const dir = "migrations/postgres"
	server := postgrestest.Start(t)
	p, err := OpenPostgres(t.Context(), PostgresConfig{URL: server.URL(server.Database())})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	files, err := fs.ReadDir(postgresMigrations, dir)
	if err != nil {
		t.Fatal(err)
	}
	older := fstest.MapFS{}
	for _, f := range files[:len(files)-1] {
		data, err := postgresMigrations.ReadFile(path.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		older[f.Name()] = &fstest.MapFile{Data: data}
		if err := migratePostgresTo(t.Context(), p.pool, older); err != nil {
			t.Errorf("with %s as the last: %v", f.Name(), err)
		}
	}
}
