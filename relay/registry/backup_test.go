package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

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

// TestBackupRemovesWhatKilledOnesLeft has processes that were killed in the midst of a
// copy, a while ago and just now: the latter may not have been.
func TestBackupRemovesWhatKilledOnesLeft(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "registry.db")
	fillSource(t, openFile(t, path))
	leave := func(name string, age time.Duration) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte("half a copy"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
		return name
	}
	abandoned := []string{leave("registry.db.stream.123.part", 2*time.Hour), leave("copy.db.456.part", 2*time.Hour), leave("copy.db.456.part-journal", 2*time.Hour)}
	kept := []string{
		leave("registry.db.stream.789.part", time.Minute), leave("registry.db.stream.mine.part", 2*time.Hour),
		leave("registry.db.123.part", 2*time.Hour), leave("other.db.456.part", 2*time.Hour),
	}
	var stream bytes.Buffer
	if err := registry.BackupTo(t.Context(), path, &stream); err != nil {
		t.Fatal(err)
	}
	if err := registry.Backup(t.Context(), path, filepath.Join(dir, "copy.db")); err != nil {
		t.Fatal(err)
	}
	for _, name := range abandoned {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
	for _, name := range kept {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	if parts, err := filepath.Glob(filepath.Join(dir, "*.part")); err != nil || len(parts) != len(kept) {
		t.Errorf("left are %v, %v; want what was there alone", parts, err)
	}
	copied, err := os.ReadFile(filepath.Join(dir, "copy.db"))
	if err != nil || !bytes.Equal(stream.Bytes(), copied) {
		t.Errorf("the stream has %d bytes and the copy %d, %v; want the same", stream.Len(), len(copied), err)
	}
}

// TestBackupStreamHasNoName reads the copy when the process can be killed for long.
func TestBackupStreamHasNoName(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("an open file has a name there")
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "registry.db")
	fillSource(t, openFile(t, path))
	err := registry.BackupTo(t.Context(), path, writerFunc(func(b []byte) (int, error) {
		if parts, err := filepath.Glob(filepath.Join(dir, "*.part")); err != nil || len(parts) > 0 {
			t.Errorf("while it is read there are %v, %v", parts, err)
		}
		return len(b), nil
	}))
	if err != nil {
		t.Fatal(err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
