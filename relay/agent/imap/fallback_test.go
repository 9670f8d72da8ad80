package imap

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A server that lacks the configured way to watch is watched by the next best;
// the log says so once, the status always, and Check as well.
func TestAWayToWatchThatTheServerLacksIsTold(t *testing.T) {
	const none = "the mail server has neither NOTIFY nor IDLE; mailboxes are looked at each 5m0s"
	for _, test := range []struct{ name, capabilities, configured, watch, lacking string }{
		{"no NOTIFY", "IDLE", "notify", "idle", "the mail server has no NOTIFY; mailboxes are watched by IDLE instead"},
		{"NOTIFY refused", "IDLE NOTIFY", "notify", "idle", "the mail server has no NOTIFY; mailboxes are watched by IDLE instead"},
		{"NOTIFY refused, and no IDLE", "NOTIFY", "notify", "poll", none},
		{"no IDLE, NOTIFY refused", "NOTIFY", "idle", "poll", none},
		{"neither", "", "notify", "poll", none},
		{"neither for auto", "", "auto", "poll", none},
		{"auto takes IDLE", "IDLE", "auto", "idle", ""},
		{"as configured", "IDLE", "idle", "idle", ""},
		{"poll is what was asked for", "IDLE", "poll", "poll", ""},
		{"off watches nobody", "", "off", "off", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := scripted("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN "+test.capabilities+"] x", func(command string) string {
					if strings.HasPrefix(command, "NOTIFY") {
						return "{tag} BAD not this set\r\n"
					}
					return strange(command)
				})
				var log bytes.Buffer
				c.Watch, c.Logger = test.configured, slog.New(slog.NewTextHandler(&log, nil))
				checked, err := mustNew(t, c).Check(t.Context(), "ann")
				if err != nil || checked.Count.Unread != 2 || checked.Watch != test.watch || checked.Lacking != test.lacking {
					t.Errorf("Check = %+v, %v, want 2 by %q, lacking %q", checked, err, test.watch, test.lacking)
				}
				s, _, stop := running(t, c)
				for _, user := range []string{"ann", "bob", "cem"} {
					s.Watch(user)
				}
				pass(time.Hour)
				told := 0
				if test.lacking != "" {
					told = 1
				}
				if notes := s.Status().Notes; slices.Contains(notes, test.lacking) != (told == 1) || len(notes) > told {
					t.Errorf("the notes are %q, want %q", notes, test.lacking)
				}
				stop()
				if n := strings.Count(log.String(), "can't watch mailboxes as configured"); n != told {
					t.Errorf("the log says it %d times, want %d:\n%s", n, told, &log)
				}
			})
		})
	}
}

// A server that learns to push changes, after an upgrade or a restart, is said to
// lack nothing.
func TestWhatTheServerLackedIsForgotten(t *testing.T) {
	var f fallback
	lacking := lacks("notify", modePoll, time.Minute)
	for i, step := range []struct {
		text  string
		first bool
	}{{lacking, true}, {lacking, false}, {"", false}, {lacking, false}, {lacks("notify", modeIdle, time.Minute), true}} {
		if first := f.note(step.text); first != step.first || f.now() != step.text {
			t.Errorf("step %d: %v, %q, want %v, %q", i, first, f.now(), step.first, step.text)
		}
	}
}
