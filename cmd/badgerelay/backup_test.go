package main

import (
	"errors"
	"net/http"
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

// TestFileReplacedUnderTheRelay: who restores a backup and forgets to stop the relay is
// told so where operators look, until it is started anew.
func TestFileReplacedUnderTheRelay(t *testing.T) {
	for name, replace := range map[string]func(f files) error{
		"was replaced": func(f files) error { return os.Rename(f.path("backup.db"), f.path("registry.db")) },
		"was removed":  func(f files) error { return os.Remove(f.path("registry.db")) },
		"link.db was replaced": func(f files) error {
			return errors.Join(os.Remove(f.path("link.db")), os.Symlink(f.path("backup.db"), f.path("link.db")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t)
			if err := serve(t, f.base(t, "")).stop(t); err != command.Done {
				t.Fatal(err)
			}
			if err := os.Symlink(f.path("registry.db"), f.path("link.db")); err != nil {
				t.Fatal(err)
			}
			_, app := apple(t, f)
			file := f.base(t, "registry: {path: "+f.path("link.db")+"}\n"+app)
			s := serve(t, file)
			want(t, command.Done, "is a copy", "registry", "backup", f.path("backup.db"), "--config", file)
			want(t, command.Done, "Succeeded", "probe", "--admin", s.Admin)
			if code, body := get(t, "http://"+s.Ops+"/readyz"); code != http.StatusOK {
				t.Fatalf("readyz = %d, %s", code, body)
			}
			if err := replace(f); err != nil {
				t.Fatal(err)
			}
			if code, body := get(t, "http://"+s.Ops+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "registrations will be lost: restart the relay") {
				t.Errorf("readyz = %d, %s", code, body)
			}
			want(t, command.Failed, name, "probe", "--admin", s.Admin)
			want(t, command.Done, "registrations will be lost: restart the relay", "status", "--admin", s.Admin)
			s.log.wait(t, name)
		})
	}
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
