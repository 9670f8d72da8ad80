package registry_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// TestPostgresBackup restores a dump, as deploy/operate.md says, into another
// database.
func TestPostgresBackup(t *testing.T) {
	server := postgrestest.Start(t)
	name, restored := server.Database(), server.Database()
	p := openPostgres(t, registry.PostgresConfig{URL: server.URL(name)})
	org := fillSource(t, p)
	server.Dump(name, restored)
	again := openPostgres(t, registry.PostgresConfig{URL: server.URL(restored)})
	wantSame(t, p, again, org)
	subscribe(t, again, org, 99999)
}

// TestSQLiteBackup restores what was written while the file was in use.
func TestSQLiteBackup(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, filepath.Join(dir, "registry.db"))
	org := fillSource(t, s)
	backup := filepath.Join(dir, "backup.db")
	if err := registry.Backup(t.Context(), filepath.Join(dir, "registry.db"), backup); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy is %v, %v; want it for its owner alone", info.Mode(), err)
	}
	again := openFile(t, backup)
	wantSame(t, s, again, org)
	subscribe(t, again, org, 99999)
}

func TestBackupThatFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path, into := filepath.Join(dir, "registry.db"), filepath.Join(dir, "backup.db")
	if err := registry.Backup(t.Context(), path, into); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("backup of no file: %v, want it unavailable", err)
	}
	if err := os.WriteFile(path, []byte("this is no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := registry.Backup(t.Context(), path, into); err == nil {
		t.Error("backup of something else succeeded")
	}
	if _, err := os.Stat(into); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a failed backup left %s: %v", into, err)
	}
	s := openFile(t, filepath.Join(dir, "good.db"))
	fillSource(t, s)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := registry.Backup(ended, filepath.Join(dir, "good.db"), into); err == nil {
		t.Error("an interrupted backup succeeded")
	}
	if left, err := filepath.Glob(into + "*"); err != nil || len(left) > 0 {
		t.Errorf("an interrupted backup left %v, %v", left, err)
	}
	if err := registry.Backup(t.Context(), filepath.Join(dir, "good.db"), path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("backup over a file: %v, want it refused", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "this is no database" {
		t.Errorf("the file that was there is %q, %v", data, err)
	}
}
