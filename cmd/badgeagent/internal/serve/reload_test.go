package serve

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/configfile"
)

func TestReloadTakesWhatIsRightAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	password, other := filepath.Join(dir, "password"), filepath.Join(dir, "other")
	write(t, password, "first\n")
	write(t, other, "other\n")
	imap := config.IMAP{Address: "127.0.0.1:1", MasterUser: "agent", MasterPasswordFile: password}
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := newServer(t, &config.Config{IMAP: imap}, func(o *Options) { o.Log = &log })
		ask := make(chan os.Signal, 1)
		next, wrong := &config.Config{IMAP: imap, Log: config.Log{Level: "debug"}}, error(nil)
		w.options.Reload = ask
		warnings := []*config.Problem{{Field: "metadata.tls", Text: "ends in three days"}}
		w.options.Reread = func() (*config.Config, []*config.Problem, error) { return next, warnings, wrong }
		reloaded := 0
		w.reloads = append(w.reloads, func() error { reloaded++; return nil })
		serve(t, w)
		reload := func() slog.Level {
			log.Reset()
			ask <- os.Interrupt // whatever it is called
			synctest.Wait()
			return w.Level.Level()
		}
		wrong = errors.New("line 3: unknown key")
		if got := reload(); got != slog.LevelInfo {
			t.Errorf("level %v after a wrong file, want the one of before", got)
		}
		if reloaded != 0 {
			t.Error("secrets were read though the file is wrong")
		}
		wrong = nil
		if got := reload(); got != slog.LevelDebug {
			t.Errorf("level %v, want debug", got)
		}
		if err := os.Remove(password); err != nil {
			t.Fatal(err)
		}
		next.IMAP.MasterPasswordFile = other
		reload()
		if reloaded != 2 {
			t.Error("a missing password kept other secrets from being read again")
		}
		for _, want := range []string{"configuration warning", "metadata.tls: ends in three days", "reload incomplete", "imap.master_password_file", `"sections":["imap","ops"]`} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %q: another file's path waits for a restart\n%s", want, log.String())
			}
		}
	})
}

func TestReloadKnowsWhatNeedsARestart(t *testing.T) {
	parse := func(s string) *config.Config {
		c, err := configfile.Parse[config.Config]("", []byte(s))
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

// TestHungFilesDoNotHoldUpTheEnd has files be where nothing comes back from, such as
// a file server that is away.
func TestHungFilesDoNotHoldUpTheEnd(t *testing.T) {
	signal := func(stop func(), _ *atomic.Bool) { stop() }
	for name, tt := range map[string]struct {
		hangs string
		end   func(stop func(), enabled *atomic.Bool)
	}{
		"reload, signal":         {"configuration", signal},
		"reload, proxy disabled": {"configuration", func(_ func(), enabled *atomic.Bool) { enabled.Store(false) }},
		"proxy's state, signal":  {"state", signal},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ask, back := make(chan os.Signal, 1), make(chan struct{})
				var enabled atomic.Bool
				enabled.Store(true)
				s := newServer(t, &config.Config{IMAP: config.IMAP{Address: "127.0.0.1:1", CredentialsFile: os.DevNull}}, func(o *Options) {
					o.Reload, o.Enabled = ask, func() (bool, error) {
						if tt.hangs == "state" {
							<-back
						}
						return enabled.Load(), nil
					}
					o.Reread = func() (*config.Config, []*config.Problem, error) {
						<-back
						return nil, nil, errors.New("the file server is back")
					}
				})
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				ended := make(chan error, 1)
				go func() { ended <- s.Run(ctx) }() // ends with ctx; it is waited for below
				if tt.hangs == "configuration" {
					ask <- os.Interrupt // whatever it is called
				}
				time.Sleep(enabledInterval)
				synctest.Wait()
				tt.end(stop, &enabled)
				late := time.AfterFunc(time.Minute, func() {
					t.Errorf("the %s that hangs holds up the end", tt.hangs)
					close(back)
				})
				if err := <-ended; err != nil {
					t.Errorf("Run: %v", err)
				}
				if late.Stop() {
					close(back)
				}
			})
		})
	}
}
