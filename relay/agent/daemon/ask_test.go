package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/relay/agent/source"
)

// away is a source whose server can't be asked, or does not answer.
type away struct {
	silent bool
	asked  atomic.Int32
}

// Name implements source.Source.
func (*away) Name() string { return "away" }

// Run implements source.Source.
func (*away) Run(ctx context.Context, _ source.Sink) error { <-ctx.Done(); return nil }

// Status implements source.Source.
func (*away) Status() source.Status { return source.Status{Trouble: "can't be reached"} }

// Count implements source.Counter.
func (a *away) Count(ctx context.Context, _ string) (source.Count, error) {
	a.asked.Add(1)
	if a.silent {
		select {
		case <-time.After(answerTimeout):
		case <-ctx.Done():
		}
	}
	return source.Count{}, errors.New("connection refused")
}

// Peek implements source.Counter.
func (a *away) Peek(context.Context, string) (source.Count, error) {
	return source.Count{}, errors.New("connection refused")
}

// beside is a server that has not the mailboxes of the one that is away.
type beside struct{ *server }

// Count implements source.Counter.
func (b beside) Count(ctx context.Context, mailbox string) (source.Count, error) {
	if strings.HasPrefix(mailbox, "away") {
		return source.Count{}, source.ErrElsewhere
	}
	return b.server.Count(ctx, mailbox)
}

// TestAServerThatIsAwayKeepsNoOtherFromBeingAsked has two mail servers, of which the
// one that is asked first is away.
func TestAServerThatIsAwayKeepsNoOtherFromBeingAsked(t *testing.T) {
	for name, first := range map[string]*away{"it refuses": {}, "it is silent": {silent: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(c *Config) { c.Sources = []source.Source{first, beside{c.Sources[0].(*server)}} })
				want := make(map[string]uint32)
				for i := range 20 {
					w.relay.subscribe(fmt.Sprintf("away%d", i))
					mailbox := fmt.Sprintf("user%d", i)
					w.relay.subscribe(mailbox)
					want[mailbox] = 0
				}
				w.start()
				soon := 100 * time.Millisecond
				if first.silent {
					soon = answerTimeout + slowAfter
				}
				w.pass(time.Minute)
				w.wantBadges(want, "those of the server that is there were counted")
				for i := range uint32(5) {
					w.pass(time.Minute)
					w.server.set("user7", 100+i)
					w.server.sink.Changed("user7")
					w.pass(soon)
					want["user7"] = 100 + i
					w.wantBadges(want, "a change is counted at once while the other server is away")
				}
				if n := first.asked.Load(); !first.silent && n > 100 {
					t.Errorf("the server that is away was asked %d times in five minutes", n)
				}
				w.server.fail(errors.New("connection refused"))
				w.pass(time.Hour)
				w.server.fail(nil)
				w.server.set("user7", 3)
				want["user7"] = 3
				w.server.sink.Changed("user7")
				w.pass(2 * askPauseMax)
				w.wantBadges(want, "both were away, and this one has come back")
			})
		})
	}
}

// TestAMovedMailboxKeepsToItsServer moves a mailbox to another server, which is away for a
// while. What is left of it at the old one is not told.
func TestAMovedMailboxKeepsToItsServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := &stale{}
		w := newWorld(t, func(c *Config) { c.Sources = append(c.Sources, old) })
		w.relay.subscribe("ann")
		w.server.set("ann", 7)
		w.start()
		w.pass(time.Minute)
		w.wantBadges(map[string]uint32{"ann": 7}, "the new server has it")
		w.server.fail(errors.New("connection refused"))
		for range 10 {
			w.server.sink.Changed("ann")
			w.pass(time.Minute)
		}
		w.wantBadges(map[string]uint32{"ann": 7}, "the new server is away")
		if r := w.daemon.Report(t.Context(), "ann"); r.Counted != nil {
			t.Errorf("the report says that %d are counted", *r.Counted)
		}
		w.server.fail(source.ErrElsewhere)
		w.server.sink.Recovered()
		w.server.sink.Changed("ann")
		w.pass(2 * askPauseMax)
		w.wantBadges(map[string]uint32{"ann": 99}, "it was moved back")
	})
}

// stale is a server with what was left of mailboxes that were moved.
type stale struct{ away }

// Count implements source.Counter.
func (*stale) Count(_ context.Context, mailbox string) (source.Count, error) {
	return source.Count{Mailbox: mailbox, Unread: 99}, nil
}

// Peek implements source.Counter.
func (s *stale) Peek(ctx context.Context, mailbox string) (source.Count, error) {
	return s.Count(ctx, mailbox)
}

// refusing is a server that is away, and refuses mailboxes when it is back.
type refusing struct {
	away
	back atomic.Bool
}

// Count implements source.Counter.
func (r *refusing) Count(ctx context.Context, mailbox string) (source.Count, error) {
	if r.back.Load() {
		return source.Count{}, source.ErrMailbox
	}
	return r.away.Count(ctx, mailbox)
}

// TestTheLogNamesWhatIsRefusedAfterAPause has a mailbox come while its server is left alone,
// which refuses it when it is back: the log names it then, and once.
func TestTheLogNamesWhatIsRefusedAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, log := &refusing{}, &bytes.Buffer{}
		w := newWorld(t, func(c *Config) {
			c.Sources = []source.Source{first, beside{c.Sources[0].(*server)}}
			c.Logger = slog.New(slog.NewTextHandler(log, nil))
		})
		w.start()
		for i := range unavailableInARow {
			w.relay.subscribe(fmt.Sprintf("away%d", i))
		}
		w.pass(time.Minute)
		w.relay.subscribe("away-late")
		w.pass(time.Minute)
		const named = `msg="mailbox not counted; it is tried again" component=asker mailbox=away-late`
		if strings.Contains(log.String(), named) {
			t.Errorf("it is named while its server is away:\n%s", log)
		}
		first.back.Store(true)
		w.pass(24 * time.Hour)
		if n := strings.Count(log.String(), named); n != 1 {
			t.Errorf("it is named %d times, want once:\n%s", n, log)
		}
	})
}

// TestAServerThatComesBackEndsNoOthersPause has one of two servers come back in the two
// ways that tell it.
func TestAServerThatComesBackEndsNoOthersPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Sources = []source.Source{&away{}, c.Sources[0]} })
		w.start()
		m := w.daemon.mailboxes
		first, second := m.counters[0], m.counters[1]
		for range unavailableInARow {
			m.unreachable(first, true, time.Now())
			m.unreachable(second, true, time.Now())
		}
		m.reachable(second)
		if m.paused(second, time.Now()) || !m.paused(first, time.Now()) {
			t.Error("want the one that answered asked, and the other left alone")
		}
		w.server.sink.Recovered()
		if !m.paused(first, time.Now()) {
			t.Error("one is well again, and the other is not left alone any more")
		}
		w.daemon.Retry()
		if m.paused(first, time.Now()) {
			t.Error("what it failed of may be mended, and it is left alone")
		}
	})
}

// TestReportAsksBesideTheAsker looks at mailboxes that a server can't tell, or that only
// the second one tells.
func TestReportAsksBesideTheAsker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := &away{}
		w := newWorld(t, func(c *Config) { c.Sources = append([]source.Source{first}, c.Sources...) })
		w.start()
		w.server.set("ann", 2)
		if r := w.daemon.Report(t.Context(), "ann"); r.Counted == nil || *r.Counted != 2 || r.CountError != "" {
			t.Errorf("%+v, want what the server that is there counts", r)
		}
		w.server.fail(errors.New("no route to host"))
		for range 5 {
			if r := w.daemon.Report(t.Context(), "ann"); r.Counted != nil || r.CountError != "connection refused" {
				t.Errorf("%+v, want the first server's error", r)
			}
		}
		if n := first.asked.Load(); n > 0 || w.server.peeked != 6 {
			t.Errorf("counts were asked for %d times, and the second server was looked at %d times; want 0 and 6", n, w.server.peeked)
		}
		w.wantAsked(0, 0, "nobody has a device")
		w.server.fail(nil)
		w.relay.subscribe("ann")
		w.pass(time.Second)
		w.wantBadges(map[string]uint32{"ann": 2}, "nothing is left alone because of reports")
	})
}
