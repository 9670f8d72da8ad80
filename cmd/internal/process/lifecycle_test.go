package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
	"badgerelay/cmd/internal/configfile"
)

func TestLifeUndoesInReverseAndSkipsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		l := NewLifecycle(slog.New(slog.DiscardHandler))
		part := func(name string, err error) func(context.Context) error {
			return func(ctx context.Context) error {
				<-ctx.Done()
				order = append(order, name)
				return err
			}
		}
		l.Start("first", part("first", nil), nil)
		l.AtEnd("file", func() error { order = append(order, "file"); return errors.New("disk is full") })
		l.Start("second", part("second", errors.New("broken")), func(context.Context) error {
			order = append(order, "drain second")
			return errors.New("3 events pending")
		})
		l.Start("third", part("third", context.Canceled), nil)
		err := l.Stop(t.Context())
		if got, want := strings.Join(order, ", "), "third, drain second, second, file, first"; got != want {
			t.Errorf("order %s, want %s", got, want)
		}
		if err == nil || err.Error() != "stop second: broken\nstop file: disk is full" {
			t.Errorf("stop() = %v, want the two failures", err)
		}
		if err := l.Stop(t.Context()); err != nil {
			t.Errorf("second stop() = %v, want nil: nothing is left", err)
		}
	})
}

func TestLifeTellsOfAPartThatEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLifecycle(slog.New(slog.DiscardHandler))
		cause := errors.New("listener is gone")
		l.Start("ops", func(context.Context) error { return cause }, nil)
		synctest.Wait()
		select {
		case err := <-l.Failed:
			if !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "ops ended by itself: ") {
				t.Errorf("failed with %v", err)
			}
		default:
			t.Error("nobody was told")
		}
		_ = l.Stop(t.Context()) // returns the same error
	})
}

func TestDrainStopsAtTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLifecycle(slog.New(slog.DiscardHandler))
		l.Start("relay", func(ctx context.Context) error { <-ctx.Done(); return nil }, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		budget, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		began := time.Now()
		if err := l.Stop(budget); err != nil {
			t.Errorf("stop() = %v, want nil: an incomplete drain loses nothing", err)
		}
		if took := time.Since(began); took != 7*time.Second {
			t.Errorf("the stop took %s, want the budget", took)
		}
	})
}

// TestAPartThatHangsIsLeftBehind has a drain and an end that wait for what does not come
// back, such as a file server that is away.
func TestAPartThatHangsIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := make(chan struct{})
		var log bytes.Buffer
		l := NewLifecycle(slog.New(slog.NewTextHandler(&log, nil)))
		ended := false
		l.AtEnd("file", func() error { ended = true; return nil })
		l.Start("keyring", func(context.Context) error { <-back; return nil }, nil)
		l.Start("ingest", func(ctx context.Context) error { <-ctx.Done(); return nil }, func(context.Context) error { <-back; return nil })
		budget, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		late := time.AfterFunc(time.Hour, func() {
			t.Error("an hour after the stop began it has not ended")
			close(back)
		})
		began := time.Now()
		err := l.Stop(budget)
		if late.Stop() {
			close(back)
		}
		if got := fmt.Sprint(err); got != "stop keyring: has not ended in time" {
			t.Errorf("Stop() = %s, want what has not ended", got)
		}
		if took := time.Since(began); took != 10*time.Second+endTime+leastEndTime {
			t.Errorf("the stop took %s, want the budget, and what those that hang have together beyond it", took)
		}
		if !ended {
			t.Error("the file was not closed")
		}
		if !strings.Contains(log.String(), `step=ingest error="has not ended in time"`) || strings.Contains(log.String(), `msg="stopped part" step=keyring`) {
			t.Errorf("the log says otherwise:\n%s", log.String())
		}
	})
}

func TestLogHidesWhatIsNotForIt(t *testing.T) {
	device, err := apns.ParseDeviceToken(strings.Repeat("ab", 32))
	if err != nil {
		t.Fatal(err)
	}
	line := func(c configfile.Log) string {
		var b bytes.Buffer
		NewLogger(&b, new(slog.LevelVar), c).Info("x", "mailbox", "sales@fabrikam.com", "token", "eyJhbGciOi", "authorization", "Bearer eyJ", "device", device, "wait", 90*time.Second)
		return b.String()
	}
	for _, format := range []string{"json", "text"} {
		got := line(configfile.Log{Format: format})
		for _, secret := range []string{"sales@", "eyJ", strings.Repeat("ab", 32)} {
			if strings.Contains(got, secret) {
				t.Errorf("%s log shows %q: %s", format, secret, got)
			}
		}
		if !strings.Contains(got, "mailbox:") || !strings.Contains(got, "1m30s") {
			t.Errorf("%s log lacks the hash or the unit: %s", format, got)
		}
	}
	if got := line(configfile.Log{Mailboxes: "clear"}); !strings.Contains(got, "sales@fabrikam.com") {
		t.Errorf("log with clear mailboxes: %s", got)
	}
}
