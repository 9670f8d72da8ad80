package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/auth/certs"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/source"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "daemon")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	s, err := certs.OpenStore(dir)
	if err == nil {
		_, _, err = s.Ensure("fabrikam.com")
	}
	if err != nil {
		panic(err)
	}
	store, certified = s, time.Now()
	return m.Run()
}

func TestABadgeFollowsItsMailbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.relay.subscribe("ann")
		w.server.set("ann", 3)
		w.server.set("bob", 9)
		w.start()
		w.pass(time.Second)
		w.wantBadges(map[string]uint32{"ann": 3}, "counted at the start; bob has no device")
		w.server.set("ann", 4)
		w.server.sink.Changed("ann")
		w.server.sink.Changed("bob")
		w.pass(time.Second)
		w.wantBadges(map[string]uint32{"ann": 4}, "a source told of a change")
		w.relay.subscribe("bob")
		w.pass(time.Second)
		w.wantBadges(map[string]uint32{"ann": 4, "bob": 9}, "a device subscribed")
		w.server.sink.Counted(source.Count{Mailbox: "bob", Unread: 0})
		w.pass(time.Second)
		w.wantBadges(map[string]uint32{"ann": 4, "bob": 0}, "a source knew the count")
		w.relay.unsubscribe("bob")
		w.pass(time.Second)
		w.server.sink.Counted(source.Count{Mailbox: "bob", Unread: 5})
		w.pass(time.Second)
		w.wantBadges(map[string]uint32{"ann": 4, "bob": 0}, "no device is left")
	})
}

func TestAProbeTroublesNoMailServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.relay.subscribe("ann")
		w.start()
		w.pass(time.Second)
		w.wantAsked(1, 1, "the start")
		w.relay.subscribe(ProbeMailbox)
		w.pass(time.Minute)
		w.wantAsked(0, 0, "a probe's mailbox is nobody's")
		w.relay.unsubscribe(ProbeMailbox)
		w.pass(time.Second)
	})
}

func TestAChangeDuringTheAnswerIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.relay.subscribe("ann")
		w.server.set("ann", 3)
		w.server.slow = time.Second
		w.start()
		w.pass(500 * time.Millisecond)
		w.server.set("ann", 4) // the answer under way says 3
		for range 10 {
			w.server.sink.Changed("ann")
		}
		w.pass(600 * time.Millisecond)
		w.wantBadges(map[string]uint32{"ann": 3}, "the first answer came")
		w.pass(time.Second)
		w.wantBadges(map[string]uint32{"ann": 4}, "it was asked once more")
		w.pass(time.Minute)
		w.wantAsked(2, 2, "ten changes are one question")
	})
}

func TestResyncKeepsItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.CountsPerSecond = 10 })
		want := map[string]uint32{}
		for i := range 100 {
			mailbox := fmt.Sprintf("user%d", i)
			w.relay.subscribe(mailbox)
			w.server.set(mailbox, uint32(i))
			want[mailbox] = uint32(i)
		}
		w.start()
		w.pass(2*time.Second + 50*time.Millisecond)
		w.wantAsked(21, 21, "one at once, and ten a second")
		w.server.set("late", 7)
		w.relay.subscribe("late")
		want["late"] = 7
		w.pass(time.Millisecond)
		w.wantAsked(1, 1, "a device that subscribes does not wait behind the others")
		w.pass(8 * time.Second)
		w.wantAsked(79, 79, "the rest")
		w.wantBadges(want, "everything was counted")
		w.pass(time.Hour)
		w.wantAsked(0, 0, "and then nothing more")
	})
}

func TestARelayThatComesBackIsToldEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.relay.subscribe("ann", "bob")
		w.start()
		w.pass(time.Second)
		w.wantAsked(2, 2, "the start")
		w.relay.close()
		w.pass(time.Hour)
		w.server.set("ann", 5) // nobody told
		w.relay.unsubscribe("bob")
		w.relay.open()
		w.pass(2 * time.Minute)
		w.wantAsked(1, 1, "bob's device left while the relay was away")
		w.wantBadges(map[string]uint32{"ann": 5, "bob": 0}, "no wrong badge after an hour")
	})
}

func TestAMailServerInTroubleIsNotStormed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.CountsPerSecond = 1000 })
		want := map[string]uint32{}
		for i := range 500 {
			mailbox := fmt.Sprintf("user%d", i)
			w.relay.subscribe(mailbox)
			want[mailbox] = 0
		}
		w.server.fail(errors.New("connection refused"))
		w.start()
		w.pass(time.Hour)
		w.wantAsked(60, 600, "a few a minute, however many mailboxes wait")
		w.server.fail(nil)
		w.pass(askPauseMax + time.Second)
		w.wantBadges(want, "nothing was lost once it was mended")
	})
}

func TestDrainWaitsForSettlementsAndNoLonger(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.relay.subscribe("ann")
			w.relay.deaf = deaf
			w.start()
			w.pass(time.Second)
			w.server.sink.Counted(source.Count{Mailbox: "ann", Unread: 2})
			began := time.Now()
			if err := w.stop(); err != nil {
				t.Errorf("Run: %v", err)
			}
			took := time.Since(began)
			if deaf && took < 10*time.Second || took > 11*time.Second || !deaf && took > time.Second {
				t.Errorf("deaf relay %v: the stop took %v, want the budget of 10s only where nothing settles", deaf, took)
			}
			w.wantBadges(map[string]uint32{"ann": 2}, "the last count was sent")
		})
	}
}

// watching is a server that hands on what it is asked on its watching connection, as the
// source of IMAP does.
type watching struct{ *server }

// Peek implements source.Counter.
func (w watching) Peek(ctx context.Context, mailbox string) (source.Count, error) {
	c, err := w.Count(ctx, mailbox)
	w.sink.Counted(c)
	return c, err
}

// TestReportHearsOfTheCountThatItCaused asks about a mailbox whose count the question hands
// on again, or anew, at a relay that holds settlements back.
func TestReportHearsOfTheCountThatItCaused(t *testing.T) {
	for _, unread := range []uint32{2, 3} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Sources = []source.Source{watching{c.Sources[0].(*server)}} })
			w.relay.maxDelay = time.Minute
			w.relay.subscribe("ann")
			w.server.set("ann", 2)
			w.start()
			w.pass(time.Minute)
			w.server.set("ann", unread)
			w.server.slow = 100 * time.Millisecond
			r := w.daemon.Report(t.Context(), "ann")
			if r.Unsettled != nil || *r.Counted != unread || *r.Sent != unread || time.Since(r.SentAt) > time.Second {
				t.Errorf("%+v, want %d counted, sent just now and settled", r, unread)
			}
			w.wantBadges(map[string]uint32{"ann": unread}, "the question handed it on")
		})
	}
}

// TestReportHearsWhatTheRelayHoldsBack asks about a count whose settlement the relay holds
// back, and about one that does not settle.
func TestReportHearsWhatTheRelayHoldsBack(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.CaseSensitive = deaf })
			w.relay.maxDelay = time.Minute
			w.relay.subscribe("ann")
			w.start()
			w.pass(time.Minute)
			w.relay.deaf = deaf
			w.server.set("ann", 2)
			w.server.sink.Changed("ann")
			w.pass(time.Minute)
			if n := w.daemon.Unsettled(); n != 1 {
				t.Fatalf("%d counts are unsettled, want the one whose settlement is held back", n)
			}
			began := time.Now()
			r := w.daemon.Report(t.Context(), "ann")
			if took := time.Since(began); (r.Unsettled != nil) != deaf || took > hearTime || *r.Counted != 2 {
				t.Errorf("deaf relay %v: %+v after %v, want unsettled only where nothing settles", deaf, r, took)
			}
			if r.CaseSensitive != deaf {
				t.Errorf("case sensitive: %v, want what is configured, %v", r.CaseSensitive, deaf)
			}
		})
	}
}

// TestDrainEndsWhereNothingCanCome stops a daemon with a count that no relay hears of.
func TestDrainEndsWhereNothingCanCome(t *testing.T) {
	for _, away := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.relay.subscribe("ann")
			w.start()
			w.pass(time.Second)
			w.relay.close()
			w.pass(away)
			w.server.sink.Counted(source.Count{Mailbox: "ann", Unread: 2})
			budget, done := context.WithTimeout(t.Context(), drainBudget)
			defer done()
			began := time.Now()
			err := w.daemon.Drain(budget)
			if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "1 unsettled: no stream to a relay: ") || took > 3*time.Second || away > 0 && took > time.Second {
				t.Errorf("away for %v: %v after %v; want an end when no stream has come back", away, err, took)
			}
			if err := w.stop(); err != nil {
				t.Errorf("Run: %v", err)
			}
			w.relay.open() // for the harness, which closes it
		})
	}
}

func TestHopeless(t *testing.T) {
	refused := &agent.Failure{Kind: agent.FailureRefused, Err: errors.New("disabled")}
	away := &agent.Failure{Kind: agent.FailureUnavailable, Err: errors.New("connection refused")}
	for _, one := range []struct {
		name   string
		status agent.Status
		want   bool
	}{
		{"an open stream", agent.Status{Connected: true, Since: time.Now().Add(-time.Hour)}, false},
		{"a standby", agent.Status{Connected: true, Standby: true}, true},
		{"not tried yet", agent.Status{}, false},
		{"just lost", agent.Status{Since: time.Now(), LastFailure: away}, false},
		{"long lost", agent.Status{Since: time.Now().Add(-reconnectTime), LastFailure: away}, true},
		{"just refused", agent.Status{Since: time.Now(), LastFailure: refused}, true},
	} {
		if got := hopeless(&one.status); (got != nil) != one.want {
			t.Errorf("%s: %v, want hopeless: %v", one.name, got, one.want)
		}
	}
}

func TestReadySaysWhyNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if reason, _ := w.daemon.Ready(); reason != "starting" {
			t.Errorf("before the start: %q", reason)
		}
		w.start()
		w.pass(time.Second)
		if reason, _ := w.daemon.Ready(); reason != "" {
			t.Errorf("not ready: %q", reason)
		}
		w.server.mu.Lock()
		w.server.status = source.Status{Trouble: "can't be reached"}
		w.server.mu.Unlock()
		if reason, _ := w.daemon.Ready(); reason != "mail server can't be reached (scripted)" {
			t.Errorf("without a mail server: %q", reason)
		}
		w.server.mu.Lock()
		w.server.status = source.Status{Notes: []string{"one waits"}}
		w.server.mu.Unlock()
		if reason, detail := w.daemon.Ready(); reason != "" || !strings.Contains(detail, "\nscripted: one waits\n") {
			t.Errorf("with a note: %q, %q", reason, detail)
		}
		w.relay.close()
		w.pass(time.Minute)
		if reason, _ := w.daemon.Ready(); reason == "" {
			t.Error("ready without a relay")
		}
		w.relay.open()
	})
}
