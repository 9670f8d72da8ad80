package agentd

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/cmd/badgeagent/internal/config"
)

func TestReloadTakesWhatIsRightAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	password, other := filepath.Join(dir, "password"), filepath.Join(dir, "other")
	write(t, password, "first\n")
	write(t, other, "other\n")
	imap := config.IMAP{Address: "127.0.0.1:1", MasterUser: "agent", MasterPasswordFile: password}
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := newWorld(t, &config.Config{IMAP: imap}, func(o *Options) { o.Log = &log })
		w.daemon.sources, w.daemon.mailboxes.watchers = nil, nil // IMAP would dial
		ask := make(chan os.Signal, 1)
		next, wrong := &config.Config{IMAP: imap, Log: config.Log{Level: "debug"}}, error(nil)
		w.daemon.options.Reload = ask
		w.daemon.options.Reread = func() (*config.Config, error) { return next, wrong }
		w.relay.subscribe("ann")
		w.server.refused["ann"] = true
		w.start()
		w.pass(time.Hour)
		w.wantAsked(5, 12, "refused")
		reload := func() slog.Level {
			log.Reset()
			ask <- os.Interrupt // whatever it is called
			synctest.Wait()
			return w.daemon.level.Level()
		}
		wrong = errors.New("line 3: unknown key")
		if got := reload(); got != slog.LevelInfo {
			t.Errorf("level %v after a wrong file, want the one of before", got)
		}
		w.wantAsked(0, 0, "nothing was read")
		wrong = nil
		if got := reload(); got != slog.LevelDebug {
			t.Errorf("level %v, want debug", got)
		}
		w.wantAsked(1, 1, "the password may be right now")
		reloaded := 0
		w.daemon.reloads = append(w.daemon.reloads, func() error { reloaded++; return nil })
		if err := os.Remove(password); err != nil {
			t.Fatal(err)
		}
		next.IMAP.MasterPasswordFile = other
		reload()
		if reloaded != 1 {
			t.Error("a missing password kept other secrets from being read again")
		}
		for _, want := range []string{"reload incomplete", "imap.master_password_file", `"sections":["imap","ops"]`} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %q: another file's path waits for a restart\n%s", want, log.String())
			}
		}
	})
}

func TestReloadKnowsWhatNeedsARestart(t *testing.T) {
	parse := func(s string) *config.Config {
		c, err := config.Parse("", []byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	old := parse("log: {level: info}\nimap: {address: a:1, folders: [INBOX]}\n")
	for next, want := range map[string]string{
		"log: {level: debug}\nimap: {address: a:1, folders: [INBOX]}\n":                     "",
		"log: {format: text}\nimap: {address: a:1, folders: [INBOX, Work]}\n":               "imap,log",
		"relay: {addresses: [b:1]}\nlog: {level: info}\nimap: {address: a:1}\nresync: {}\n": "relay,imap",
	} {
		if got := strings.Join(needRestart(old, parse(next)), ","); got != want {
			t.Errorf("needRestart(%q) = %s, want %s", next, got, want)
		}
	}
}
