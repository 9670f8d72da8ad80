package imaptest

import (
	"os"
	"path/filepath"
	"testing"
)

// Run starts a Dovecot that ends with the test. Where there is none the test
// is skipped, saying which package brings it; in CI it fails.
func Run(t testing.TB, c Config) *Server {
	t.Helper()
	if err := Missing(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := ""
	if Root() != "" {
		dir = filepath.Join(Root(), "tmp")
	}
	dir, err := os.MkdirTemp(dir, "dovecot-") // TempDir's names are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a leftover fails nothing
	s, err := New(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Log(s.Log())
		}
	})
	return s
}
