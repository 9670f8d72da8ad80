package registry

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLockForRelay: the lock is that of the file, not of one of its names.
func TestLockForRelay(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "registry.db")
	t.Chdir(dir)
	for link, target := range map[string]string{"link.db": path, "relative.db": filepath.Join("..", filepath.Base(dir), "registry.db")} {
		if filepath.IsAbs(target) {
			link = filepath.Join(elsewhere, link)
		}
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(dir, filepath.Join(elsewhere, "directory")); err != nil {
		t.Fatal(err)
	}
	paths := []string{path, "registry.db", filepath.Join(elsewhere, "directory", "registry.db")}
	for _, made := range []bool{false, true} {
		if made {
			if err := open(t, SQLiteConfig{Path: path}).Close(); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, filepath.Join(elsewhere, "link.db"), "relative.db")
		}
		for _, first := range paths {
			unlock, err := LockForRelay(t.Context(), first)
			if err != nil {
				t.Fatalf("lock %s: %v", first, err)
			}
			for _, second := range paths {
				again, err := LockForRelay(t.Context(), second)
				if err == nil {
					t.Errorf("with %s locked, %s is locked too (file made: %t)", first, second, made)
					_ = again()
				} else if !strings.Contains(err.Error(), "another relay uses this registry") {
					t.Errorf("with %s locked, %s: %v", first, second, err)
				}
			}
			if err := unlock(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestMigrationLocksTheFile: who opens a registry by a link waits for who migrates it by
// its path.
func TestMigrationLocksTheFile(t *testing.T) {
	path, link := newPath(t), filepath.Join(t.TempDir(), "link.db")
	if err := errors.Join(open(t, SQLiteConfig{Path: path}).Close(), os.Symlink(path, link)); err != nil {
		t.Fatal(err)
	}
	if err := open(t, SQLiteConfig{Path: link}).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(link + ".lock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock is beside the link: %v", err)
	}
}

// TestLockForRelayOfTwoNames refuses a file with a hard link, under each of its names, and
// takes one of which a process that was killed has left another.
func TestLockForRelayOfTwoNames(t *testing.T) {
	path := newPath(t)
	if err := open(t, SQLiteConfig{Path: path}).Close(); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other.db")
	if err := os.Link(path, other); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, other} {
		unlock, err := LockForRelay(t.Context(), name)
		if invalid, ok := errors.AsType[*InvalidError](err); !ok || !strings.Contains(invalid.Detail, "hard link") {
			t.Errorf("lock %s: %v, want its other name to be told", name, err)
		}
		if err == nil {
			_ = unlock()
		}
	}
	if err := errors.Join(os.Remove(other), os.Link(path, path+".123.part")); err != nil {
		t.Fatal(err)
	}
	unlock, err := LockForRelay(t.Context(), path)
	if err != nil {
		t.Fatalf("with what a killed process left: %v", err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".123.part"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a killed process left is there: %v", err)
	}
}
