package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"badgerelay/cmd/internal/command"
	"badgerelay/relay/registry/postgrestest"
	"badgerelay/relay/registry/registrytest"
)

// unwritable is a registry that can be read and not written.
type unwritable struct {
	config      string // the registry's section
	spoil, mend func() // has it take no changes, and again
	says        string // the database's words
	start       string // what another relay says that starts meanwhile
}

// readOnlyPostgres is a server whose operator has stopped writes, as on a standby.
func readOnlyPostgres(t *testing.T, _ files) unwritable {
	server := postgrestest.Start(t)
	set := func(on string) func() {
		return func() {
			server.Exec("postgres", "ALTER SYSTEM SET default_transaction_read_only = "+on)
			server.Exec("postgres", "SELECT pg_reload_conf()")
		}
	}
	return unwritable{fmt.Sprintf("registry: {url: %q}", server.URL(server.Database())), set("on"), set("off"), "read-only transaction", "read only"}
}

// fullPostgres is a server without room for the database, and with room for its log.
func fullPostgres(t *testing.T, _ files) unwritable {
	dir := registrytest.SmallDisk(t, 32)
	server := postgrestest.Start(t)
	url := server.URL(server.Database("TABLESPACE " + server.Tablespace(dir)))
	spoil, mend := filler(t, dir)
	return unwritable{fmt.Sprintf("registry: {url: %q}", url), spoil, mend, "No space left on device", ""}
}

// fullSQLite is a file on a full disk.
func fullSQLite(t *testing.T, _ files) unwritable {
	dir := registrytest.SmallDisk(t, 4)
	spoil, mend := filler(t, dir)
	return unwritable{fmt.Sprintf("registry: {path: %q}", filepath.Join(dir, "registry.db")), spoil, mend, "database or disk is full", "another relay"}
}

// filler fills a disk to the last byte, and makes room again.
func filler(t *testing.T, dir string) (fill, empty func()) {
	return func() { empty = registrytest.FillDisk(t, dir) }, func() { empty() }
}

// TestRegistryThatTakesNoChanges has the database of a relay take no changes for a
// while. Operators and back ends are told so, the log has the database's words, badges
// of what is registered go on, and it all goes on by itself.
func TestRegistryThatTakesNoChanges(t *testing.T) {
	for name, make := range map[string]func(*testing.T, files) unwritable{
		"PostgreSQL read-only": readOnlyPostgres,
		"PostgreSQL full":      fullPostgres,
		"SQLite full":          fullSQLite,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t)
			bad := make(t, f)
			r := startRelayWith(t, func(files) string { return bad.config })
			n := 0 // devices that were acknowledged
			add := func() (code int, out string) {
				code, out = execute(t, "subscription", "add", "--organization", enrolledOrganization,
					"--mailbox", fmt.Sprint("user", n+1), "--app", "mail", "--device-token", numberedDevice(t, n+1).Hex(), "--admin", r.Admin)
				if code == command.Done {
					n++
				}
				return code, out
			}
			r.subscribe(t, "user1", 1)
			n++
			r.publish(t, "user1", 1)
			r.wantReadyz(t, "ready", false)

			bad.spoil()
			code, out := command.Done, ""
			for deadline := time.Now().Add(testTimeout); code == command.Done; code, out = add() {
				if time.Now().After(deadline) {
					t.Fatalf("%d changes were taken", n)
				}
			}
			if code != command.Failed || !strings.Contains(out, "read-only or full") {
				t.Errorf("a registration = %d %q, want it to say what is wrong", code, out)
			}
			r.log.wait(t, bad.says)
			r.wantReadyz(t, "registry: the last change failed", true)
			want(t, command.Failed, "read-only or full", "organization", "disable", enrolledOrganization, "--admin", r.Admin)
			r.publish(t, "user1", 2)
			if bad.start != "" {
				want(t, command.Failed, bad.start, "serve", "--config", newFiles(t).base(t, bad.config))
			}

			bad.mend()
			for deadline := time.Now().Add(testTimeout); code != command.Done; code, out = add() {
				if time.Now().After(deadline) {
					t.Fatalf("no change is taken again: %s", out)
				}
				time.Sleep(20 * time.Millisecond) // a real server, not a bubble
			}
			r.wantReadyz(t, "ready", false)
			want(t, command.Done, fmt.Sprint("Subscriptions       : ", n), "status", "--admin", r.Admin)
			r.publish(t, "user1", 3)
			if code := r.stop(t); code != command.Done {
				t.Errorf("serve = %d", code)
			}
		})
	}
}

// wantReadyz wants the relay to be ready, and to say whether the registry takes changes.
func (r *enrolled) wantReadyz(t *testing.T, part string, failed bool) {
	t.Helper()
	code, body := get(t, "http://"+r.Ops+"/readyz")
	if code != http.StatusOK || !strings.Contains(body, part) || strings.Contains(body, "registry") != failed {
		t.Errorf("readyz = %d %q, want it ready with %q", code, body, part)
	}
}

// TestStartOnWhatTakesNoChanges starts a relay on a registry that can be read alone: it
// ends and says why, changes nothing, and starts when it can write.
func TestStartOnWhatTakesNoChanges(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		dir := registrytest.SmallDisk(t, 4)
		remount := func(flags uintptr) {
			t.Helper()
			if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_NODEV|unix.MS_NOSUID|flags, ""); err != nil {
				t.Fatal(err)
			}
		}
		f := newFiles(t)
		file := f.base(t, "registry: {path: "+filepath.Join(dir, "registry.db")+"}\n")
		s := serve(t, file)
		want(t, command.Done, "is enrolled", "organization", "add", enrolledOrganization, "--admin", s.Admin)
		s.stop(t)
		remount(unix.MS_RDONLY)
		want(t, command.Failed, "can't be opened or made", "config", "check", "--connect", file)
		want(t, command.Failed, "read-only file system", "serve", "--config", file)
		remount(0)
		s = serve(t, file)
		want(t, command.Done, enrolledOrganization, "organization", "list", "--admin", s.Admin)
	})
	t.Run("standby", func(t *testing.T) {
		primary := postgrestest.Start(t)
		name := primary.Database()
		f := newFiles(t)
		s := serve(t, f.base(t, fmt.Sprintf("registry: {url: %q}", primary.URL(name))))
		want(t, command.Done, "is enrolled", "organization", "add", enrolledOrganization, "--admin", s.Admin)
		s.stop(t)
		standby := primary.Standby()
		file := f.base(t, fmt.Sprintf("registry: {url: %q}", standby.URL(name)))
		want(t, command.Failed, "read only", "config", "check", "--connect", file)
		want(t, command.Failed, "read only", "serve", "--config", file)
		primary.Kill()
		standby.Promote()
		s = serve(t, file)
		want(t, command.Done, enrolledOrganization, "organization", "list", "--admin", s.Admin)
	})
}
