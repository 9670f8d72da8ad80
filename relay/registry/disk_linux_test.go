package registry_test

import (
	"errors"
	"path/filepath"
	"testing"

	"badgerelay/relay"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
	"badgerelay/relay/registry/registrytest"
)

// outliveFullDisk registers while somebody else fills the disk and makes room
// again: errors are clear, reading goes on, and nothing that was acknowledged
// is lost.
func outliveFullDisk(t *testing.T, r registry.Registry, dir string) {
	t.Helper()
	o, err := r.AddOrganization(t.Context(), registry.NewOrganization{Name: "fabrikam.com"})
	if err != nil {
		t.Fatal(err)
	}
	var acknowledged []relay.MailboxKey
	subscribe := func(n int) error {
		_, err := r.Subscribe(t.Context(), o.ID, numbered(0, n))
		if err == nil {
			acknowledged = append(acknowledged, relay.MailboxKey{Organization: o.ID, Mailbox: numbered(0, n).Mailbox})
		}
		return err
	}
	there := func(when string) {
		t.Helper()
		found, err := r.Lookup(t.Context(), acknowledged)
		if err != nil {
			t.Errorf("%s: lookup: %v", when, err)
			return
		}
		for i, subscriptions := range found {
			if len(subscriptions) != 1 {
				t.Errorf("%s: %v was acknowledged and has %d subscriptions", when, acknowledged[i], len(subscriptions))
			}
		}
	}
	if err := subscribe(0); err != nil {
		t.Fatal(err)
	}
	empty := registrytest.FillDisk(t, dir)
	n := 1
	for err = nil; err == nil && n < 100_000; n++ {
		err = subscribe(n)
	}
	if !errors.Is(err, registry.ErrUnavailable) {
		t.Fatalf("after %d: got %v, want ErrUnavailable", n, err)
	}
	there("while the disk is full")
	empty()
	if err := subscribe(n); err != nil {
		t.Errorf("with room again: %v", err)
	}
	there("with room again")
	t.Logf("%d registrations acknowledged", len(acknowledged))
}

func TestSQLiteDiskFull(t *testing.T) {
	dir := registrytest.SmallDisk(t, 4)
	s, err := registry.OpenSQLite(t.Context(), registry.SQLiteConfig{Path: filepath.Join(dir, "registry.db")})
	if err != nil {
		t.Fatal(err)
	}
	outliveFullDisk(t, s, dir)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestPostgresDiskFull fills the disk of a tablespace. That of the write-ahead
// log is not tried: PostgreSQL itself ends then, as in TestPostgresAway.
func TestPostgresDiskFull(t *testing.T) {
	dir := registrytest.SmallDisk(t, 32)
	server := postgrestest.Start(t)
	space := server.Tablespace(dir)
	c := registry.PostgresConfig{URL: server.URL(server.Database("TABLESPACE " + space))}
	outliveFullDisk(t, openPostgres(t, c), dir)
}
