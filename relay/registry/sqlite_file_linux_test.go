package registry

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestFilesAreClosedToOthers opens registries that others could open, and makes
// one whatever the umask is.
func TestFilesAreClosedToOthers(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o377))
	path := newPath(t)
	s := open(t, SQLiteConfig{Path: path})
	addOrg(t, s)
	wantModes(t, path)
	syscall.Umask(0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, link} {
		if err := errors.Join(os.Chmod(path, 0o664), os.WriteFile(path+"-wal", nil, 0o666)); err != nil {
			t.Fatal(err)
		}
		s := open(t, SQLiteConfig{Path: name})
		if _, err := s.Subscribe(t.Context(), 1, registration(1)); err != nil {
			t.Fatal(err)
		}
		wantModes(t, path)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func wantModes(t *testing.T, path string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("file %q: got %v, %v; want mode 0600", suffix, info, err)
		}
	}
}

func TestRefusedFiles(t *testing.T) {
	dir := t.TempDir()
	dangling, foreign := filepath.Join(dir, "dangling.db"), filepath.Join(dir, "foreign.db")
	if err := os.Symlink(filepath.Join(dir, "nowhere", "x.db"), dangling); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", foreign)
	if err == nil {
		_, err = db.ExecContext(t.Context(), `CREATE TABLE messages (id INTEGER)`)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	migrated := filepath.Join(dir, "migrated.db") // with the same library
	if db, err = sql.Open("sqlite", migrated); err == nil {
		_, err = db.ExecContext(t.Context(), `CREATE TABLE goose_db_version (id INTEGER PRIMARY KEY, version_id INTEGER, is_applied INTEGER, tstamp);
			INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1), (3, 1); CREATE TABLE orders (id INTEGER)`)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{dangling: "link", foreign: "another program", migrated: "another program"} {
		c := SQLiteConfig{Path: path}
		for name, f := range map[string]func() error{
			"open":  func() error { _, err := OpenSQLite(t.Context(), c); return err },
			"check": func() error { _, err := c.Check(t.Context()); return err },
		} {
			err := f()
			if invalid, ok := errors.AsType[*InvalidError](err); !ok || invalid.Field != "path" || !strings.Contains(invalid.Detail, want) {
				t.Errorf("%s %s: got %v, want an *InvalidError of the path with %q", name, filepath.Base(path), err, want)
			}
		}
	}
	var tables string
	db, err = sql.Open("sqlite", foreign)
	if err == nil {
		err = db.QueryRowContext(t.Context(), `SELECT group_concat(name) FROM sqlite_schema`).Scan(&tables)
	}
	if err := errors.Join(err, db.Close()); err != nil || tables != "messages" {
		t.Errorf("the other program's database has tables %q, %v; want it as it was", tables, err)
	}
}

// TestCheckChangesNothing checks what is not there, empty, and in use.
func TestCheckChangesNothing(t *testing.T) {
	path := newPath(t)
	check := func(want string) {
		t.Helper()
		found, err := SQLiteConfig{Path: path}.Check(context.Background())
		if err != nil || found != want {
			t.Errorf("got %q, %v; want %q", found, err, want)
		}
	}
	check("no file yet")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the check left a file: %v", err)
	}
	open(t, SQLiteConfig{Path: path})
	check("a file of schema version 1")
	if _, err := (SQLiteConfig{Path: filepath.Join(path, "x", "y.db")}).Check(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("no directory: got %v, want ErrUnavailable", err)
	}
}
