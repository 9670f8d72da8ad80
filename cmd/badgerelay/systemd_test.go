package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSystemdIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close() // nobody reads it any more
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "3600000000")
	told := func(want ...string) {
		t.Helper()
		missing := map[string]bool{}
		for _, w := range want {
			missing[w] = true
		}
		for len(missing) > 0 {
			_ = manager.SetReadDeadline(time.Now().Add(testTimeout)) // Read fails if this does
			var buffer [256]byte
			n, err := manager.Read(buffer[:])
			if err != nil {
				t.Fatalf("systemd was not told %v: %v", missing, err)
			}
			if got := string(buffer[:n]); !missing[got] {
				t.Fatalf("systemd was told %q, want one of %s", got, strings.Join(want, ", "))
			}
			delete(missing, string(buffer[:n]))
		}
	}
	f := newFiles(t)
	s := serve(t, f.base(t, ""))
	told("READY=1", "WATCHDOG=1") // in any order
	s.hup()
	told("RELOADING=1")
	told("READY=1")
	s.cancel()
	told("STOPPING=1")
	if code := s.stop(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}
