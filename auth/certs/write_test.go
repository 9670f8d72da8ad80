package certs

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// TestWriteFileReplacesFilesOnly follows a link to a file, and leaves everything else.
func TestWriteFileReplacesFilesOnly(t *testing.T) {
	dir := t.TempDir()
	file, link, dangling, inside := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling"), filepath.Join(dir, "inside")
	for _, err := range []error{
		os.WriteFile(file, []byte("old"), 0o600), os.Mkdir(inside, 0o700), os.Symlink("file", link), os.Symlink("nowhere", dangling),
	} {
		if err != nil {
			if runtime.GOOS == "windows" {
				t.Skip(err) // links need a right there
			}
			t.Fatal(err)
		}
	}
	for path, taken := range map[string]bool{filepath.Join(dir, "new"): true, file: true, link: true, dangling: false, inside: false, os.DevNull: false} {
		before, _ := os.Lstat(path)
		err := WriteFile(path, []byte("new"), 0o644)
		if (err == nil) != taken {
			t.Errorf("%s: %v, want that it is taken: %t", path, err, taken)
		}
		if after, _ := os.Lstat(path); before != nil && after.Mode().Type() != before.Mode().Type() {
			t.Errorf("%s was %v, and is %v", path, before.Mode(), after.Mode())
		}
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "new" {
		t.Errorf("the file at the link's end holds %q, %v", data, err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 5 {
		t.Errorf("there are %v, want no others", files)
	}
}
