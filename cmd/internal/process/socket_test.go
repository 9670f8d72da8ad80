package process

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"badgerelay/cmd/internal/configfile"
)

func TestListenSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := ListenSocket(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != fs.ModeSocket {
		t.Errorf("got %v, %v, want a socket of mode 0600", info.Mode(), err)
	}
	if _, err := ListenSocket(path, 0o600); !errors.Is(err, ErrSocketInUse) {
		t.Errorf("a live socket: got %v, want ErrSocketInUse", err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the first listener lost its socket: %v", err)
	}
	_ = c.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestListenSocketStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	l, err := ListenSocket(path, 0o600)
	if err != nil {
		t.Fatalf("a stale socket was not replaced: %v", err)
	}
	_ = l.Close()
}

// TestListenSocketOfALongPath: what the check of a configuration takes can be listened on,
// however long the directory and the name are.
func TestListenSocketOfALongPath(t *testing.T) {
	short, err := os.MkdirTemp("/tmp", "s")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(short)
	taken := 0
	for size := 80; size <= 110; size++ {
		dir := filepath.Join(short, strings.Repeat("d", size-len(short)-1))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "admin.sock", "badgerelay-admin.sock"} {
			var k configfile.Checker
			if k.Socket("admin.socket", filepath.Join(dir, name)); len(k.Found) > 0 {
				continue
			}
			taken++
			l, err := ListenSocket(filepath.Join(dir, name), 0o600)
			if err != nil {
				t.Errorf("a directory of %d bytes, and %q: %v", size, name, err)
				continue
			}
			_ = l.Close() // only that it was opened mattered
		}
	}
	if taken == 0 {
		t.Error("no path is taken")
	}
}

func TestListenSocketNotASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenSocket(path, 0o600); err == nil {
		t.Fatal("a file was replaced")
	}
	if data, err := os.ReadFile(path); string(data) != "precious" {
		t.Errorf("the file became %q, %v", data, err)
	}
}

func TestListenSocketCloseLeavesAnothers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	first, err := ListenSocket(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := ListenSocket(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	_ = first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("closing the first removed the second's socket: %v", err)
	}
}
