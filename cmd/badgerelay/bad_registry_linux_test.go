package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"badgerelay/cmd/internal/command"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// badRegistry is a database that no relay can work with.
type badRegistry struct {
	name  string
	spoil func(t *testing.T, path string) // makes it of a good file
	code  int                             // of serve and of config check
	says  string
	copy  int // exit code of registry backup
}

func inFile(statement string) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		t.Helper()
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

// instead puts something else in the file's place.
func instead(put func(path string) error) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := put(path); err != nil {
			t.Fatal(err)
		}
	}
}

var badRegistries = []badRegistry{
	{"newer", inFile(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (7, 1)`), command.Misused, "written by a newer version", command.Done},
	{"without a version", inFile(`DELETE FROM goose_db_version WHERE version_id > 0`), command.Misused, "without their version", command.Misused},
	{"without a table", inFile(`DROP TABLE removed_subscriptions`), command.Misused, "lacks removed_subscriptions.", command.Done},
	{"without a column", inFile(`ALTER TABLE organizations DROP COLUMN purging`), command.Misused, "lacks organizations.purging", command.Done},
	{"damaged", func(t *testing.T, path string) {
		if err := os.Truncate(path, 20000); err != nil {
			t.Fatal(err)
		}
	}, command.Failed, "malformed", command.Failed},
	{"of another program", instead(func(path string) error {
		db, err := sql.Open("sqlite", path)
		if err != nil {
			return err
		}
		defer db.Close()
		_, err = db.Exec(`CREATE TABLE wp_posts (id INTEGER)`)
		return err
	}), command.Misused, "another program", command.Misused},
	{"no database", instead(func(path string) error {
		return os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o644)
	}), command.Misused, "is no SQLite database", command.Misused},
	{"a directory", instead(func(path string) error { return os.Mkdir(path, 0o755) }), command.Misused, "is a directory", command.Misused},
	{"an empty file", func(t *testing.T, path string) {
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
	}, command.Misused, "is an empty file, and no registry", command.Misused},
	{"a pipe", instead(func(path string) error { return syscall.Mkfifo(path, 0o644) }), command.Misused, "no regular file", command.Misused},
	{"a dangling link", instead(func(path string) error { return os.Symlink("nowhere/registry.db", path) }), command.Misused, "link to a file that is not there", command.Misused},
}

// TestBadRegistry has an operator name, or restore, what is no registry that the relay
// can work with. Each command says so at once, names the file, and changes nothing of
// what is there.
func TestBadRegistry(t *testing.T) {
	for _, bad := range badRegistries {
		t.Run(bad.name, func(t *testing.T) {
			f := newFiles(t)
			path := f.path("registry.db")
			r, err := registry.OpenSQLite(t.Context(), registry.SQLiteConfig{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			bad.spoil(t, path)
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			config, copied := f.base(t, ""), f.path("copy.db")
			checked := want(t, bad.code, bad.says, "config", "check", "--connect", config)
			if note := "The registry: damaged, or not to be read."; strings.Contains(checked, note) != (bad.code == command.Failed) || strings.Count(checked, "The registry: ") > 1 ||
				bad.code == command.Misused && strings.Contains(checked, "The registry: ") {
				t.Errorf("config check says %q", checked)
			}
			valid := fmt.Sprintf(`"valid": %t`, bad.code != command.Misused)
			want(t, bad.code, valid, "config", "check", "--connect", "--output", "json", config)
			out := want(t, bad.code, bad.says, "serve", "--config", config)
			if !strings.Contains(out, "registry.path "+path) && !strings.Contains(out, "registry.path: "+path) {
				t.Errorf("serve says %q, want the setting and the file", out)
			}
			says := bad.says
			if bad.copy == command.Done {
				says = "is a copy of"
			}
			want(t, bad.copy, says, "registry", "backup", "--config", config, copied)
			if _, err := os.Stat(copied); (err == nil) != (bad.copy == command.Done) {
				t.Errorf("the copy: %v after exit code %d", err, bad.copy)
			}
			after, err := os.Lstat(path)
			if err != nil || after.Size() != before.Size() || bad.code == command.Misused && after.Mode() != before.Mode() {
				t.Errorf("it was %v and %d bytes, and is %v and %d, %v", before.Mode(), before.Size(), after.Mode(), after.Size(), err)
			}
		})
	}
}

// TestBadPostgres does so with databases of a PostgreSQL server.
func TestBadPostgres(t *testing.T) {
	server := postgrestest.Start(t)
	for _, bad := range []struct {
		name, statement string
		code            int
		says            string
	}{
		{"newer", `INSERT INTO goose_db_version (version_id, is_applied) VALUES (7, true); UPDATE schema_compatibility SET oldest = 7`, command.Misused, "newer version"},
		{"without a version", `DELETE FROM goose_db_version WHERE version_id > 0`, command.Misused, "without their version"},
		{"without a table", `DROP TABLE inquiry_answers`, command.Misused, "lacks inquiry_answers."},
		{"without a column", `ALTER TABLE subscriptions DROP COLUMN quarantine`, command.Misused, "lacks subscriptions.quarantine"},
		{"of another program", `DROP TABLE organizations CASCADE; DROP TABLE subscriptions; CREATE TABLE wp_posts (id bigint)`, command.Misused, "another program"},
		{"read-only", `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$`, command.Failed, "read only connection"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			database := server.Database()
			r, err := registry.OpenPostgres(t.Context(), registry.PostgresConfig{URL: server.URL(database)})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			server.Exec(database, bad.statement)
			f := newFiles(t)
			config := f.base(t, fmt.Sprintf("registry: {url: %q}\n", server.URL(database)))
			checked := want(t, bad.code, bad.says, "config", "check", "--connect", config)
			if note := "The registry: not reached."; strings.Contains(checked, note) != (bad.code == command.Failed) || strings.Count(checked, "The registry: ") > 1 ||
				bad.code == command.Misused && strings.Contains(checked, "The registry: ") {
				t.Errorf("config check says %q", checked)
			}
			if bad.code == command.Misused {
				want(t, bad.code, bad.says, "serve", "--config", config)
			}
			want(t, command.Misused, "pg_dump", "registry", "backup", "--config", config, f.path("copy.db"))
		})
	}
}

// TestRegistryModes starts a relay under odd umasks; what it makes is its owner's.
func TestRegistryModes(t *testing.T) {
	for _, umask := range []int{0, 0o077, 0o377} {
		func() {
			defer syscall.Umask(syscall.Umask(umask))
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a directory is entered
				t.Fatal(err)
			}
			path := filepath.Join(dir, "registry.db")
			unlock, err := registry.LockForRelay(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			r, err := registry.OpenSQLite(context.Background(), registry.SQLiteConfig{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.AddOrganization(t.Context(), registry.NewOrganization{Name: "fabrikam.com"}); err != nil {
				t.Error(err)
			}
			for _, suffix := range []string{"", "-wal", "-shm", ".lock", ".relay"} {
				if info, err := os.Stat(path + suffix); err != nil || info.Mode() != 0o600 {
					t.Errorf("umask %#o: registry.db%s is %v, %v; want mode 0600", umask, suffix, info.Mode(), err)
				}
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if err := unlock(); err != nil {
				t.Error(err)
			}
		}()
	}
}
