package daemon

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/relay/agent/source"
)

func TestARefusedMailboxIsAskedLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.relay.subscribe("ann", "nobody")
		w.server.refused["nobody"] = true
		w.start()
		w.pass(time.Hour)
		w.wantAsked(1+7, 1+12, "ann once, the other after 10 s and then less and less")
		w.pass(4 * pauses[askedRefused].most)
		w.wantAsked(4, 8, "each half hour, or somewhat more often")
		w.wantBadges(map[string]uint32{"ann": 0}, "the other is served")
		w.server.mend("nobody")
		w.pass(pauses[askedRefused].most)
		w.wantBadges(map[string]uint32{"ann": 0, "nobody": 0}, "it is there now, and nobody had to tell")
	})
}

func TestWhatFailedIsAskedAnewWhenItMayBeMended(t *testing.T) {
	for name, mended := range map[string]func(*world){
		"a password was changed": func(w *world) { w.daemon.Retry() },
		"the server recovered":   func(w *world) { w.server.sink.Recovered() },
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.relay.subscribe("ann")
			w.server.refused["ann"] = true
			w.start()
			w.pass(time.Hour)
			w.wantAsked(5, 12, "refused")
			mended(w)
			w.pass(time.Second)
			w.wantAsked(1, 1, name)
		})
	}
}

// TestEveryMailboxIsCountedAtATakeover does not trust what was counted while
// another process of the agent was active.
func TestEveryMailboxIsCountedAtATakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.relay.subscribe("ann", "bob")
		w.start()
		w.pass(time.Minute)
		w.wantAsked(2, 2, "at the start")
		w.server.set("ann", 3)
		w.daemon.mailboxes.recount()
		w.pass(time.Second)
		w.wantAsked(2, 2, "at the takeover")
		w.wantBadges(map[string]uint32{"ann": 3, "bob": 0}, "the newest")
	})
}

func TestAChangeOfARefusedMailboxIsAskedSoonAndNotAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.relay.subscribe("nobody")
		w.server.refused["nobody"] = true
		w.start()
		w.pass(time.Hour)
		w.wantAsked(5, 12, "less and less")
		for range 3600 {
			w.pass(time.Second)
			w.server.sink.Changed("nobody")
		}
		w.wantAsked(10, 14, "a change each second is a question each five minutes")
		w.server.mend("nobody")
		w.server.sink.Changed("nobody")
		w.pass(newsPause)
		w.wantBadges(map[string]uint32{"nobody": 0}, "it is there now")
	})
}

func TestOneMailboxInTroubleHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.relay.subscribe("ann", "sick")
		w.server.sick["sick"] = true
		w.start()
		for i := uint32(1); i <= 12; i++ {
			for range 60 {
				w.pass(10 * time.Second)
				w.server.sink.Changed("sick")
			}
			w.server.set("ann", i)
			w.server.sink.Changed("ann")
			w.pass(100 * time.Millisecond)
			w.wantBadges(map[string]uint32{"ann": i}, "ann's count can be asked for")
		}
		w.wantAsked(13+24, 13+60, "the other's is tried each five minutes, or somewhat more often")
		w.server.mend("sick")
		w.pass(pauses[askedUnavailable].most)
		w.wantBadges(map[string]uint32{"ann": 12, "sick": 0}, "it is well again")
	})
}

func TestAChangeThatNobodyToldIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.relay.subscribe("ann")
		w.start()
		w.pass(time.Second)
		w.wantAsked(1, 1, "the start")
		w.server.set("ann", 5)
		w.pass(recount/2 - time.Second)
		w.wantAsked(0, 0, "it was counted not long ago")
		w.pass(recount / 2)
		w.wantAsked(1, 1, "it was counted long ago")
		w.wantBadges(map[string]uint32{"ann": 5}, "no badge stays wrong for ever")
	})
}

func TestACountThatDidNotFitIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Relay.MaxUnsettled = 1 })
		w.relay.subscribe("ann", "bob", "cat")
		w.relay.deaf = true
		w.start()
		w.pass(time.Second)
		w.wantBadges(map[string]uint32{"ann": 0}, "one fits")
		w.wantAsked(3, 3, "each was asked")
		w.pass(fullPause/2 - 2*time.Second)
		w.wantAsked(0, 0, "there is no room yet")
		w.relay.mu.Lock()
		w.relay.deaf = false
		w.relay.mu.Unlock()
		w.server.sink.Counted(source.Count{Mailbox: "ann", Unread: 1})
		w.pass(fullPause)
		w.wantBadges(map[string]uint32{"ann": 1, "bob": 0, "cat": 0}, "there was room")
		w.relay.mu.Lock()
		w.relay.deaf = true
		w.relay.mu.Unlock()
		w.server.sink.Counted(source.Count{Mailbox: "ann", Unread: 2})
		w.server.set("bob", 7)
		w.server.sink.Counted(source.Count{Mailbox: "bob", Unread: 7}) // by a source, while bob is idle
		w.pass(time.Second)
		w.relay.mu.Lock()
		w.relay.deaf = false
		w.relay.mu.Unlock()
		w.server.sink.Counted(source.Count{Mailbox: "ann", Unread: 3})
		w.pass(fullPause)
		w.wantBadges(map[string]uint32{"ann": 3, "bob": 7, "cat": 0}, "there was room again")
	})
}

func TestADeviceThatSubscribedWhileTheRelayWasAwayIsNotLastInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.CountsPerSecond = 0.1 })
		for i := range 100 {
			w.relay.subscribe(fmt.Sprintf("user%d", i))
		}
		w.start()
		w.pass(20 * time.Minute)
		w.wantAsked(100, 100, "the start")
		w.relay.close()
		w.relay.subscribe("zoe")
		w.relay.open()
		w.pass(2 * time.Minute)
		w.wantAsked(3, 14, "the others keep their pace")
		w.relay.mu.Lock()
		defer w.relay.mu.Unlock()
		if _, told := w.relay.badges["zoe"]; !told {
			t.Error("zoe, who was not known, waits behind all who were")
		}
	})
}

func TestQueueKeepsNoMoreThanItHolds(t *testing.T) {
	var q queue
	for range 10 {
		q.push(&mailbox{state: inUrgent})
	}
	for range 10000 {
		q.push(&mailbox{state: inUrgent})
		if q.pop(inUrgent) == nil {
			t.Fatal("nothing comes out")
		}
	}
	if len(q.boxes)-q.head != 10 || cap(q.boxes) > 100 {
		t.Errorf("room for %d with %d in it, want 10 and little more", cap(q.boxes), len(q.boxes)-q.head)
	}
}

func TestMendedWhileAMailboxIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.relay.subscribe("ann")
		w.server.mu.Lock()
		w.server.refused["ann"], w.server.slow = true, time.Second
		w.server.mu.Unlock()
		w.start()
		w.pass(500 * time.Millisecond)
		w.server.mend("ann")
		w.server.sink.Recovered()
		w.pass(2 * time.Second) // less than the first pause
		w.wantBadges(map[string]uint32{"ann": 0}, "asked again at once, because what it failed of may be mended")
	})
}

func TestAChangeWhileAMailboxIsAskedStaysUrgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.CountsPerSecond = 0.1 })
		w.relay.subscribe("ann")
		w.server.mu.Lock()
		w.server.slow = time.Second
		w.server.mu.Unlock()
		w.start()
		w.pass(500 * time.Millisecond)
		w.server.set("ann", 4)
		w.server.sink.Changed("ann")
		w.server.sink.Missed() // which alone would wait for 10 s
		w.server.sink.Recovered()
		w.pass(2 * time.Second)
		w.wantBadges(map[string]uint32{"ann": 4}, "it changed while it was asked")
		w.wantAsked(2, 2, "once more for the change")
	})
}

// TestWhatNobodyAsksDoesNotWait has an agent for back ends only: mailboxes come and
// go, and there is no mail server to ask.
func TestWhatNobodyAsksDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Sources = nil })
		w.start()
		for i := range 300 {
			mailbox := fmt.Sprintf("user%d", i)
			w.relay.subscribe(mailbox)
			w.pass(10 * time.Millisecond)
			w.relay.unsubscribe(mailbox)
			w.pass(10 * time.Millisecond)
		}
		w.relay.subscribe("ann")
		w.pass(time.Second)
		w.daemon.mailboxes.recountAll()
		m := w.daemon.mailboxes
		m.mu.Lock()
		kept := len(m.urgent.boxes) + len(m.patient.boxes)
		m.mu.Unlock()
		if kept != 0 {
			t.Errorf("%d mailboxes are in queues that nobody takes from", kept)
		}
		if reason, detail := w.daemon.Ready(); reason != "" || !strings.HasSuffix(detail, "\nmailboxes: 1, 0 to be counted") {
			t.Errorf("ready says %q, %q", reason, detail)
		}
	})
}
