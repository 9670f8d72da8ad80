package registry_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"badgerelay/relay"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// smallDisk is a file system of its own, in memory, with room for so many
// megabytes. A test that can't have one is skipped, and fails where CI is set.
func smallDisk(t *testing.T, megabytes int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "badgedisk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("needs the right to mount a small file system: %v", err)
		}
		t.Skipf("needs the right to mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves no room on the disk, and returns what makes room again.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

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
	empty := fill(t, dir)
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
	dir := smallDisk(t, 4)
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
	dir := smallDisk(t, 32)
	server := postgrestest.Start(t)
	space := server.Tablespace(dir)
	c := registry.PostgresConfig{URL: server.URL(server.Database("TABLESPACE " + space))}
	outliveFullDisk(t, openPostgres(t, c), dir)
}
