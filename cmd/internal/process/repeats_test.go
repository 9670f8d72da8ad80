package process

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/cmd/internal/configfile"
)

func TestRepeatedFailuresAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := NewLogger(&b, new(slog.LevelVar), configfile.Log{Format: "text"})
		want := func(why string, parts ...string) {
			t.Helper()
			lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
			if b.Len() == 0 {
				lines = nil
			}
			if len(lines) != len(parts) {
				t.Fatalf("%s: %d lines, want %d:\n%s", why, len(lines), len(parts), b.String())
			}
			for i, part := range parts {
				if !strings.Contains(lines[i], part) {
					t.Errorf("%s: line %q, want %q in it", why, lines[i], part)
				}
			}
			b.Reset()
		}
		fail := func(component string, n int) {
			log.With("component", component).Warn("connection failed", "app", "mail", "error", fmt.Errorf("port %d refused", n), "attempt", n)
		}
		for n := range 1000 {
			fail("apns", n)
		}
		want("a thousand in a row", "port 0 refused")
		fail("registry", 1)
		want("another component", "component=registry")
		log.Info("serving", "error", "none")
		log.Info("serving", "error", "none")
		want("what is no warning", "serving", "serving")
		log.Error("reload refused", "problem", "line 3")
		log.Error("reload refused", "problem", "line 3")
		want("what somebody asked for", "line 3", "line 3")

		time.Sleep(repeatInterval - time.Millisecond)
		fail("apns", 1000)
		want("just before the minute is over")
		time.Sleep(time.Millisecond)
		log.Info("stopped")
		want("any record brings the count", "attempt=1000 repeated=1000", "stopped")
		fail("apns", 1001)
		want("it was said just now")
		time.Sleep(repeatInterval)
		log.Info("x")
		want("once more", "repeated=1", "x")
		time.Sleep(2 * repeatInterval)
		fail("apns", 1002)
		want("after it had ended it is news", "port 1002 refused")
	})
}

// TestAnotherCauseIsSaidAtOnce, and causes that take turns can't flood the log.
func TestAnotherCauseIsSaidAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := NewLogger(&b, new(slog.LevelVar), configfile.Log{Format: "text"})
		lines := func(why string, want int) {
			t.Helper()
			if got := strings.Count(b.String(), "\n"); got != want {
				t.Errorf("%s: %d lines, want %d:\n%s", why, got, want, &b)
			}
			b.Reset()
		}
		fail := func(text string) { log.Warn("not ready", "error", errors.New(text)) }
		for n := range 100 {
			fail(fmt.Sprintf("dial 127.0.0.1:%d: connection refused", n))
		}
		lines("one cause", 1)
		fail("password authentication failed")
		fail("password authentication failed")
		lines("another cause", 1)
		for n := range 1000 {
			fail(strings.Repeat("x", n%50+1))
		}
		lines("many causes in turn", mostCauses-2)
		time.Sleep(repeatInterval)
		fail("connection refused")
		lines("a minute later: what was counted, and the new cause", 2)
	})
}

func TestRepeatsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := NewLogger(&b, new(slog.LevelVar), configfile.Log{})
		for n := range 2 * mostRepeats {
			log.Warn("not fetched", "organization", fmt.Sprintf("%d.example", n), "error", errors.New("timeout"))
		}
		if got := strings.Count(b.String(), "\n"); got != mostRepeats+mostASecond {
			t.Errorf("%d lines of %d failures that differ, want %d and a second's share", got, 2*mostRepeats, mostRepeats)
		}
	})
}

// TestDebugLinesHaveTheirShare says what a stranger can cause, a hundred times as
// often as it may be said, and beside it something else.
func TestDebugLinesHaveTheirShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		level := new(slog.LevelVar)
		level.Set(slog.LevelDebug)
		log := NewLogger(&b, level, configfile.Log{Format: "text"})
		flood := func() (lines int) {
			before := strings.Count(b.String(), "token refused")
			for n := range 100 * mostASecond {
				log.Debug("token refused", "n", n)
			}
			return strings.Count(b.String(), "token refused") - before
		}
		if got := flood(); got != mostASecond {
			t.Errorf("%d lines in a second, want %d", got, mostASecond)
		}
		if log.Debug("other"); !strings.Contains(b.String(), "msg=other") {
			t.Error("another place has no share of its own")
		}
		time.Sleep(time.Second)
		if got := flood(); got != mostASecond {
			t.Errorf("%d lines in the next second, want %d", got, mostASecond)
		}
		if want := fmt.Sprintf("left_out=%d", 99*mostASecond); !strings.Contains(b.String(), want) {
			t.Errorf("the log lacks %s", want)
		}
		for range 2 * mostASecond {
			log.Info("an operator did something")
		}
		if got := strings.Count(b.String(), "an operator did something"); got != 2*mostASecond {
			t.Errorf("%d lines that only operators cause, want all %d", got, 2*mostASecond)
		}
	})
}

func TestOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o OnceAMinute
		if !o.Due() || o.Due() {
			t.Error("not due exactly once at the start")
		}
		time.Sleep(time.Minute - time.Millisecond)
		if o.Due() {
			t.Error("due before the minute is over")
		}
		time.Sleep(time.Millisecond)
		if !o.Due() || o.Due() {
			t.Error("not due exactly once after a minute")
		}
	})
}
