package registry

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"badgerelay/relay/registry/postgrestest"
)

// TestSchemaIsComplete compares what is checked at start with what migrations make.
func TestSchemaIsComplete(t *testing.T) {
	columns := func(query string, s *store) (all []string) {
		t.Helper()
		if err := s.query(t.Context(), query, nil, func(row scanner) error {
			var name string
			err := row.Scan(&name)
			all = append(all, name)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return all
	}
	compare := func(kind string, have []string, own map[string]string) {
		t.Helper()
		want := map[string]bool{}
		for _, schema := range []map[string]string{sharedSchema, own} {
			for table, columns := range schema {
				for column := range strings.FieldsSeq(columns) {
					want[table+"."+column] = true
				}
			}
		}
		for _, name := range have {
			if !want[name] {
				t.Errorf("%s: schema.go lacks %s", kind, name)
			}
			delete(want, name)
		}
		for name := range maps.Keys(want) {
			t.Errorf("%s: schema.go has %s, which no migration makes", kind, name)
		}
	}
	compare("SQLite", columns(`SELECT t.name || '.' || c.name FROM sqlite_schema t, pragma_table_info(t.name) c
		WHERE t.type = 'table' AND t.name NOT IN ('goose_db_version', 'sqlite_sequence')`, open(t, SQLiteConfig{Path: newPath(t)}).store), sqliteSchema)
	server := postgrestest.Start(t)
	p, err := OpenPostgres(t.Context(), PostgresConfig{URL: server.URL(server.Database())})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	compare("PostgreSQL", columns(`SELECT table_name || '.' || column_name FROM information_schema.columns
		WHERE table_schema = current_schema() AND table_name <> 'goose_db_version'`, p.store), postgresSchema)
}

// TestHalfARegistry takes something away, as a restore that was interrupted leaves it.
func TestHalfARegistry(t *testing.T) {
	server := postgrestest.Start(t)
	for statement, want := range map[string]string{
		`DROP TABLE removed_subscriptions`:                  "removed_subscriptions.app",
		`ALTER TABLE organizations DROP COLUMN purging`:     "organizations.purging",
		`DELETE FROM goose_db_version WHERE version_id = 1`: "without their version",
	} {
		path := newPath(t)
		s := open(t, SQLiteConfig{Path: path})
		if _, err := s.writer.db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		database := server.Database()
		c := PostgresConfig{URL: server.URL(database)}
		p, err := OpenPostgres(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		server.Exec(database, statement)
		for name, f := range map[string]func() error{
			"open SQLite":      func() error { _, err := OpenSQLite(t.Context(), SQLiteConfig{Path: path}); return err },
			"check SQLite":     func() error { _, err := SQLiteConfig{Path: path}.Check(t.Context()); return err },
			"open PostgreSQL":  func() error { _, err := OpenPostgres(t.Context(), c); return err },
			"check PostgreSQL": func() error { _, err := c.Check(t.Context()); return err },
		} {
			if invalid, ok := errors.AsType[*InvalidError](f()); !ok || !strings.Contains(invalid.Detail, want) {
				t.Errorf("%s after %s: got %v, want an *InvalidError with %q", name, statement, invalid, want)
			}
		}
	}
}
