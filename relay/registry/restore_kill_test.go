package registry_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"badgerelay/relay"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// restorePath is the variable of the environment that makes the test binary a
// process that restores, of the file or the database that it names.
const restorePath = "REGISTRY_TEST_RESTORE_PATH"

// openAny opens a file, or a database by its URL.
func openAny(ctx context.Context, where string) (registry.Registry, error) {
	if strings.HasPrefix(where, "postgres") {
		return registry.OpenPostgres(ctx, registry.PostgresConfig{URL: where})
	}
	return registry.OpenSQLite(ctx, registry.SQLiteConfig{Path: where})
}

// restoreUntilKilled restores everything and prints a line for each part.
func restoreUntilKilled(where string) error {
	ctx := context.Background()
	s, err := openAny(ctx, where)
	if err != nil {
		return err
	}
	err = s.Restore(ctx, registry.RestoreRequest{}, func(part []registry.Restoration) error {
		_, err := fmt.Println(len(part))
		return err
	})
	return errors.Join(err, errors.New("was not killed"))
}

// TestKilledRestore kills a process in the midst of restoring. What it told of
// is live, every subscription is either live or removed, and the next one
// restores the rest.
func TestKilledRestore(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { killedRestore(t, filepath.Join(t.TempDir(), "registry.db")) })
	t.Run("postgres", func(t *testing.T) {
		server := postgrestest.Start(t)
		killedRestore(t, server.URL(server.Database()))
	})
}

func killedRestore(t *testing.T, where string) {
	const n, perMailbox = 6000, 4
	s, err := openAny(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.AddOrganization(t.Context(), registry.NewOrganization{Name: "fabrikam.com"})
	if err != nil {
		t.Fatal(err)
	}
	rs, removals := many(n), make([]relay.Removal, n)
	for i := range rs {
		rs[i].Mailbox = fmt.Sprint("box", i/perMailbox)
		removals[i] = relay.Removal{Key: relay.MailboxKey{Organization: o.ID, Mailbox: rs[i].Mailbox}, App: rs[i].App, Device: rs[i].Device, Reason: "BadDeviceToken"}
	}
	if _, err := s.ImportSubscriptions(t.Context(), o.ID, rs); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), removals); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	told := killRestore(t, where, 2)
	if s, err = openAny(t.Context(), where); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	live, removed := split(t, s, o.ID)
	if live < told || live+removed != n || live == n {
		t.Errorf("%d are live and %d removed of %d, want at least the %d that it told of, and not all", live, removed, n, told)
	}
	restored := 0
	if err := s.Restore(t.Context(), registry.RestoreRequest{}, func(part []registry.Restoration) error {
		for _, one := range part {
			if one.Err != nil {
				t.Errorf("%+v", one)
			}
		}
		restored += len(part)
		return nil
	}); err != nil || restored != removed {
		t.Errorf("restored %d, %v; want the other %d", restored, err, removed)
	}
	if live, removed = split(t, s, o.ID); live != n || removed != 0 {
		t.Errorf("%d are live and %d removed, want all %d live", live, removed, n)
	}
}

// killRestore kills a process after it told of so many parts, and returns how
// many subscriptions these had.
func killRestore(t *testing.T, where string, parts int) (told int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), restorePath+"="+where)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for ; lines.Scan(); parts-- {
		var n int
		if _, err := fmt.Sscan(lines.Text(), &n); err != nil {
			t.Fatal(err)
		}
		told += n
		if parts == 1 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || parts > 0 {
		t.Fatalf("process ended with %v before it was killed", err)
	}
	return told
}

// split counts an organization's subscriptions, by Scan, which its counters have
// to agree with, and by the list of the removed ones.
func split(t *testing.T, s registry.Registry, org relay.OrganizationID) (live, removed int) {
	t.Helper()
	if err := s.Scan(t.Context(), func(batch []registry.Entry) error { live += len(batch); return nil }); err != nil {
		t.Fatal(err)
	}
	if o, err := s.OrganizationByID(t.Context(), org); err != nil || o.Subscriptions != uint64(live) {
		t.Errorf("the organization says %d, %v; want %d", o.Subscriptions, err, live)
	}
	for page := (registry.Page{Size: registry.MaxPageSize}); ; {
		part, next, err := s.ListSubscriptions(t.Context(), registry.SubscriptionFilter{Organization: org, Removed: true}, page)
		if err != nil {
			t.Fatal(err)
		}
		removed += len(part)
		if page.Token = next; next == "" {
			return live, removed
		}
	}
}
