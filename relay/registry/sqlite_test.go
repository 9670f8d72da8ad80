package registry_test

import (
	"path/filepath"
	"testing"

	"badgerelay/relay/registry"
	"badgerelay/relay/registry/registrytest"
)

func TestSQLiteConformance(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		return openFile(t, filepath.Join(t.TempDir(), "registry.db"))
	})
}

// openFile opens a database and closes it at the end of the test.
func openFile(t testing.TB, path string) *registry.SQLite {
	t.Helper()
	s, err := registry.OpenSQLite(t.Context(), registry.SQLiteConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}
