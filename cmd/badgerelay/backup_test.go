package main

import (
	"os"
	"strings"
	"testing"

	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/command"
)

// TestBackupAndRestore does what the operators' guide says: a copy while the
// relay runs, and later the copy in the place of the registry.
func TestBackupAndRestore(t *testing.T) {
	f := newFiles(t)
	_, app := apple(t, f)
	file := f.base(t, app)
	s := serve(t, file)
	subscribe := func(mailbox, digit string) {
		t.Helper()
		want(t, command.Done, "The device is on "+mailbox, "subscription", "add", "--organization", "fabrikam.com",
			"--mailbox", mailbox, "--app", "mail", "--device-token", strings.Repeat(digit, 64), "--admin", s.Admin)
	}
	want(t, command.Done, "is enrolled", "organization", "add", "fabrikam.com", "--admin", s.Admin)
	subscribe("kept@fabrikam.com", "a")

	want(t, command.Done, f.path("backup.db")+" is a copy of "+f.path("registry.db")+".\n", "registry", "backup", f.path("backup.db"), "--config", file)
	want(t, command.Failed, "badgerelay: there is "+f.path("backup.db")+" already, and a backup takes no other file's place", "registry", "backup", f.path("backup.db"), "--config", file)
	want(t, command.Misused, "badgerelay: "+f.dir+" is a directory; name a file in it", "registry", "backup", f.dir, "--config", file)
	subscribe("later@fabrikam.com", "b")
	want(t, command.Done, "Subscriptions       : 2", "status", "--admin", s.Admin)

	streamed := f.write(t, "streamed.db", want(t, command.Done, "SQLite format 3", "registry", "backup", "-", "--config", file))

	s.stop(t)
	for _, name := range []string{"registry.db", "registry.db-wal", "registry.db-shm"} {
		if err := os.Remove(f.path(name)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	if err := os.Rename(f.path("backup.db"), f.path("registry.db")); err != nil {
		t.Fatal(err)
	}
	s = serve(t, file)
	want(t, command.Done, "Subscriptions       : 1", "status", "--admin", s.Admin)
	out := want(t, command.Done, "kept@fabrikam.com", "subscription", "list", "--organization", "fabrikam.com", "--admin", s.Admin)
	if strings.Contains(out, "later@fabrikam.com") {
		t.Errorf("what came after the backup is there: %s", out)
	}
	subscribe("later@fabrikam.com", "b") // as agents do again

	s.stop(t)
	if err := os.Rename(streamed, f.path("registry.db")); err != nil {
		t.Fatal(err)
	}
	s = serve(t, file)
	want(t, command.Done, "Subscriptions       : 2", "status", "--admin", s.Admin)
	want(t, command.Misused, "pg_dump", "registry", "backup", f.path("x.db"), "--config",
		f.write(t, "postgres.yaml", "registry: {url: postgres://badgerelay@db.example.com/badgerelay}\n"))
}

func TestBackupOfWhatIsNotThere(t *testing.T) {
	f := newFiles(t)
	want(t, command.Misused, "needs <file>", "registry", "backup")
	want(t, command.Failed, "no such file", "registry", "backup", f.path("x.db"), "--config", f.write(t, "c.yaml", "registry: {path: "+f.path("none.db")+"}\n"))
	if _, err := os.Stat(config.DefaultPath); err == nil {
		if os.Getenv("CI") != "" {
			t.Fatal("a relay is configured here")
		}
		t.Skip("a relay is configured here")
	}
	want(t, command.Misused, "name the relay's configuration with --config", "registry", "backup", f.path("x.db"))
}
