package registry_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"badgerelay/apns"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// In the environment these, and restorePath, make the test binary the process to
// be killed: one that registers, and one that brings the schema of a file up to date.
const (
	killPath    = "REGISTRY_TEST_KILL_PATH"
	migratePath = registry.MigratePathVariable
)

func TestMain(m *testing.M) {
	if path := os.Getenv(killPath); path != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(path))
		os.Exit(3)
	}
	if where := os.Getenv(restorePath); where != "" {
		fmt.Fprintln(os.Stderr, restoreUntilKilled(where))
		os.Exit(3)
	}
	if path := os.Getenv(migratePath); path != "" {
		fmt.Println("begins")
		if err := registry.MigrateLater(context.Background(), path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		fmt.Println("done") // and wait to be killed
		select {}
	}
	os.Exit(m.Run())
}

func numbered(round, n int) registry.Registration {
	sum := sha256.Sum256(fmt.Append(nil, round, n))
	d, err := apns.DeviceTokenFromBytes(sum[:])
	if err != nil {
		panic(err) // a hash is 32 bytes
	}
	return registry.Registration{Mailbox: fmt.Sprint(round, "/", n), App: "com.example.mail", Device: d}
}

// writeUntilKilled subscribes from four sides and prints what was acknowledged.
func writeUntilKilled(path string) error {
	ctx := context.Background()
	s, err := registry.OpenSQLite(ctx, registry.SQLiteConfig{Path: path})
	if err != nil {
		return err
	}
	o, err := s.GetOrganization(ctx, "fabrikam.com")
	if err != nil {
		return err
	}
	round := int(o.Subscriptions)
	fmt.Println(round)
	errs := make(chan error)
	for g := range 4 {
		go func() { // ends with the process
			for n := g; ; n += 4 {
				if _, err := s.Subscribe(ctx, o.ID, numbered(round, n)); err != nil {
					errs <- err
				}
				fmt.Println(n) // one write of the system each
			}
		}()
	}
	return <-errs
}

// TestKilled kills a process in the midst of its writing, several times over the
// same file, and finds everything that was acknowledged.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.db")
	s, err := registry.OpenSQLite(t.Context(), registry.SQLiteConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.AddOrganization(t.Context(), registry.NewOrganization{Name: "fabrikam.com"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var acknowledged []registry.Registration
	random := rand.New(rand.NewPCG(4, 4))
	for range registry.KillRounds(t) {
		acknowledged = append(acknowledged, killAfter(t, path, 1+random.IntN(250))...)
		verify(t, path, o.ID, acknowledged)
	}
	t.Logf("%d registrations acknowledged, none lost", len(acknowledged))
}

// killAfter runs the process, kills it after so many acknowledgements, and
// returns all there were.
func killAfter(t *testing.T, path string, after int) (acknowledged []registry.Registration) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), killPath+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var round int
	for first := true; lines.Scan(); first = false {
		var n int
		if _, err := fmt.Sscan(lines.Text(), &n); err != nil {
			t.Fatal(err)
		}
		if first {
			round = n
			continue
		}
		acknowledged = append(acknowledged, numbered(round, n))
		if len(acknowledged) == after {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || len(acknowledged) < after {
		t.Fatalf("process ended with %v after %d acknowledgements, want it killed after %d", err, len(acknowledged), after)
	}
	return acknowledged
}

func verify(t *testing.T, path string, org relay.OrganizationID, acknowledged []registry.Registration) {
	t.Helper()
	s, err := registry.OpenSQLite(t.Context(), registry.SQLiteConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	keys := make([]relay.MailboxKey, len(acknowledged))
	for i, r := range acknowledged {
		keys[i] = relay.MailboxKey{Organization: org, Mailbox: r.Mailbox}
	}
	found, err := s.Lookup(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range acknowledged {
		if len(found[i]) != 1 || found[i][0].Device != r.Device {
			t.Errorf("mailbox %s: got %v, want the device that was acknowledged", r.Mailbox, found[i])
		}
	}
	var scanned uint64
	if err := s.Scan(t.Context(), func(batch []registry.Entry) error { scanned += uint64(len(batch)); return nil }); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Counts(t.Context()); err != nil || c.Subscriptions != scanned || scanned < uint64(len(acknowledged)) {
		t.Errorf("got %d counted, %d scanned, %v; want at least %d", c.Subscriptions, scanned, err, len(acknowledged))
	}
	// A file that can be read and not written would pass so far.
	if _, err := s.Subscribe(t.Context(), org, acknowledged[0]); err != nil {
		t.Errorf("write after the kill: %v", err)
	}
}
