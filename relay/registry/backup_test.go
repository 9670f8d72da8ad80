package registry_test

import (
	"path/filepath"
	"testing"

	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// TestPostgresBackup restores a dump, as deploy/README.md says, into another
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

// TestSQLiteBackup restores what VACUUM INTO wrote while the file was in use.
func TestSQLiteBackup(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, filepath.Join(dir, "registry.db"))
	org := fillSource(t, s)
	backup := filepath.Join(dir, "backup.db")
	registry.Vacuum(t, filepath.Join(dir, "registry.db"), backup)
	again := openFile(t, backup)
	wantSame(t, s, again, org)
	subscribe(t, again, org, 99999)
}
