package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
	"badgerelay/cmd/badgerelay/internal/config"
)

func TestLifeUndoesInReverseAndSkipsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		l := newLife(slog.New(slog.DiscardHandler))
		part := func(name string, err error) func(context.Context) error {
			return func(ctx context.Context) error {
				<-ctx.Done()
				order = append(order, name)
				return err
			}
		}
		l.start("first", part("first", nil), nil)
		l.atEnd("file", func() error { order = append(order, "file"); return errors.New("disk is full") })
		l.start("second", part("second", errors.New("broken")), func(context.Context) error {
			order = append(order, "drain second")
			return errors.New("3 events pending")
		})
		l.start("third", part("third", context.Canceled), nil)
		err := l.stop(t.Context())
		if got, want := strings.Join(order, ", "), "third, drain second, second, file, first"; got != want {
			t.Errorf("order %s, want %s", got, want)
		}
		if err == nil || err.Error() != "stop second: broken\nstop file: disk is full" {
			t.Errorf("stop() = %v, want the two failures", err)
		}
		if err := l.stop(t.Context()); err != nil {
			t.Errorf("second stop() = %v, want nil: nothing is left", err)
		}
	})
}

func TestLifeTellsOfAPartThatEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(slog.New(slog.DiscardHandler))
		cause := errors.New("listener is gone")
		l.start("ops", func(context.Context) error { return cause }, nil)
		synctest.Wait()
		select {
		case err := <-l.failed:
			if !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "ops ended by itself: ") {
				t.Errorf("failed with %v", err)
			}
		default:
			t.Error("nobody was told")
		}
		_ = l.stop(t.Context()) // returns the same error
	})
}

func TestDrainStopsAtTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(slog.New(slog.DiscardHandler))
		l.start("relay", func(ctx context.Context) error { <-ctx.Done(); return nil }, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		budget, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		began := time.Now()
		if err := l.stop(budget); err != nil {
			t.Errorf("stop() = %v, want nil: an incomplete drain loses nothing", err)
		}
		if took := time.Since(began); took != 7*time.Second {
			t.Errorf("the stop took %s, want the budget", took)
		}
	})
}

func TestLogHidesWhatIsNotForIt(t *testing.T) {
	device, err := apns.ParseDeviceToken(strings.Repeat("ab", 32))
	if err != nil {
		t.Fatal(err)
	}
	line := func(c config.Log) string {
		var b bytes.Buffer
		newLogger(&b, new(slog.LevelVar), c).Info("x", "mailbox", "sales@fabrikam.com", "token", "eyJhbGciOi", "authorization", "Bearer eyJ", "device", device, "wait", 90*time.Second)
		return b.String()
	}
	for _, format := range []string{"json", "text"} {
		got := line(config.Log{Format: format})
		for _, secret := range []string{"sales@", "eyJ", strings.Repeat("ab", 32)} {
			if strings.Contains(got, secret) {
				t.Errorf("%s log shows %q: %s", format, secret, got)
			}
		}
		if !strings.Contains(got, "mailbox:") || !strings.Contains(got, "1m30s") {
			t.Errorf("%s log lacks the hash or the unit: %s", format, got)
		}
	}
	if got := line(config.Log{Mailboxes: "clear"}); !strings.Contains(got, "sales@fabrikam.com") {
		t.Errorf("log with clear mailboxes: %s", got)
	}
}

func TestReloadKnowsWhatNeedsARestart(t *testing.T) {
	parse := func(s string) *config.Config {
		c, err := config.Parse("", []byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	old := parse("log: {level: info}\nlisten: {tls: {certificate_file: a, key_file: b}}\napps: [{topic: x, token: {key_file: a, key_id: b, team_id: c}}]\n")
	for next, want := range map[string]string{
		"log: {level: debug}\nlisten: {tls: {certificate_file: c, key_file: d}}\napps: [{topic: x, certificate: {file: y}}]\n": "",
		"log: {format: text}\nlisten: {address: a:1}\napps: [{topic: y, token: {key_id: b}}]\n":                                "listen,apps,log",
		"registry: {path: z}\nlisten: {tls: {certificate_file: a, key_file: b}}\napps: []\n":                                   "registry,apps",
	} {
		if got := strings.Join(needRestart(old, parse(next)), ","); got != want {
			t.Errorf("needRestart(%q) = %s, want %s", next, got, want)
		}
	}
}
