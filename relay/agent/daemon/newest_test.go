package daemon

import (
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/relay/agent/source"
)

func TestVersionsThatGoBackAreCountedAnew(t *testing.T) {
	push := func(unread uint32, version uint64) source.Count {
		return source.Count{Mailbox: "ann", Unread: unread, Epoch: 7, Version: version}
	}
	for name, c := range map[string]struct {
		told, truth uint32
	}{
		"a count":                          {told: 3, truth: 3},
		"a zero is never held back":        {told: 0, truth: 0},
		"an old word, told too late":       {told: 9, truth: 2},
		"a zero that is not so (any more)": {told: 0, truth: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.relay.subscribe("ann")
				w.server.versions["ann"] = [2]uint64{7, 1000}
				w.start()
				w.pass(time.Second)
				w.server.sink.Counted(push(2, 1001))
				w.pass(time.Second)
				w.wantBadges(map[string]uint32{"ann": 2}, "newer versions are taken as they are")
				w.wantAsked(1, 1, "only the start's")
				w.server.set("ann", c.truth)
				w.server.versions["ann"] = [2]uint64{7, 5} // the index was rebuilt
				w.server.sink.Counted(push(c.told, 5))
				w.pass(100 * time.Millisecond)
				w.wantAsked(1, 1, "the mail server is asked")
				w.wantBadges(map[string]uint32{"ann": c.truth}, "at once")
				w.server.sink.Counted(push(8, 6))
				w.pass(100 * time.Millisecond)
				w.wantBadges(map[string]uint32{"ann": 8}, "it goes on from the lower version")
				w.wantAsked(0, 0, "without asking")
			})
		})
	}
}

func TestAnAnswerThatAChangeOvertookIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.relay.subscribe("ann")
		w.start()
		w.pass(time.Second)
		w.wantAsked(1, 1, "the start")
		w.server.set("ann", 3)
		w.server.slow = time.Second
		w.server.sink.Changed("ann") // the answer, 3, comes a second later
		w.pass(500 * time.Millisecond)
		w.server.set("ann", 4)
		w.server.sink.Counted(source.Count{Mailbox: "ann", Unread: 4})
		w.pass(100 * time.Millisecond)
		w.wantBadges(map[string]uint32{"ann": 4}, "told by the server")
		w.pass(600 * time.Millisecond)
		w.wantBadges(map[string]uint32{"ann": 4}, "the older answer is not taken")
		w.pass(2 * time.Second)
		w.wantAsked(2, 2, "asked again")
		w.wantBadges(map[string]uint32{"ann": 4}, "and right")
	})
}

func TestWithNobodyToAskALowerVersionIsTakenAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Sources = []source.Source{&pushing{}} })
		told := w.daemon.config.Sources[0].(*pushing)
		w.relay.subscribe("ann")
		w.start()
		w.pass(time.Second)
		told.sink.Counted(source.Count{Mailbox: "ann", Unread: 5, Epoch: 7, Version: 1000})
		told.sink.Counted(source.Count{Mailbox: "ann", Unread: 4, Epoch: 7, Version: 999})
		w.pass(time.Second)
		w.wantBadges(map[string]uint32{"ann": 5}, "the other was overtaken")
		w.pass(reorder)
		told.sink.Counted(source.Count{Mailbox: "ann", Unread: 0, Epoch: 7, Version: 3})
		w.pass(time.Second)
		w.wantBadges(map[string]uint32{"ann": 0}, "the index was rebuilt")
	})
}

func TestWhatIsMarkedDeletedIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.relay.subscribe("ann")
		w.server.set("ann", 2)
		w.server.deleted["ann"] = 1
		w.start()
		w.pass(time.Second)
		w.wantAsked(1, 1, "the start")
		told := source.Count{Mailbox: "ann", Unread: 4, Epoch: 7, Version: 5, WithDeleted: true}
		w.server.set("ann", 3)
		w.server.sink.Counted(told)
		w.pass(time.Second)
		w.wantAsked(1, 1, "the server's own count has one too many")
		w.wantBadges(map[string]uint32{"ann": 3}, "as people see it")
		w.server.deleted["ann"] = 0
		w.server.sink.Counted(told)
		w.pass(time.Second)
		w.wantAsked(1, 1, "it may have been expunged")
		told.Unread, told.Version = 5, 6
		w.server.sink.Counted(told)
		w.pass(time.Second)
		w.wantAsked(0, 0, "nothing is marked any more")
		w.wantBadges(map[string]uint32{"ann": 5}, "as it was told")
		told.Unread, told.Version = 0, 7
		w.server.sink.Counted(told)
		w.pass(time.Second)
		w.wantAsked(0, 0, "none is none")
		w.wantBadges(map[string]uint32{"ann": 0}, "as it was told")
	})
}

func TestStaleIsCountedAtOnceAndThenWhenItIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.relay.newer["ann"] = true
		w.relay.subscribe("ann", "bob")
		w.start()
		w.pass(time.Second)
		w.wantAsked(3, 3, "ann's twice")
		if _, stale := w.daemon.mailboxes.behind(); stale != 1 {
			t.Errorf("%d are stale, it says, want 1", stale)
		}
		w.pass(stalePause - 2*time.Second)
		w.wantAsked(0, 0, "the relay still remembers the other agent's")
		w.relay.mu.Lock()
		w.relay.newer["ann"] = false
		w.relay.mu.Unlock()
		w.server.set("ann", 6)
		w.pass(2 * time.Second)
		w.wantBadges(map[string]uint32{"ann": 6, "bob": 0}, "the relay has forgotten it")
		if _, stale := w.daemon.mailboxes.behind(); stale != 0 {
			t.Errorf("%d are stale, it says, want none", stale)
		}
	})
}

func TestNamesAreComparedAsTheMailServerDoes(t *testing.T) {
	for _, exact := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.CaseSensitive = exact })
			w.relay.subscribe("Vera@fabrikam.com", "VERA@fabrikam.com", "Jürgen@fabrikam.com")
			w.start()
			w.pass(time.Second)
			w.wantAsked(3, 3, "the start")
			w.server.sink.Counted(source.Count{Mailbox: "vera@fabrikam.com", Unread: 2})
			w.server.set("Jürgen@fabrikam.com", 5)
			w.server.sink.Changed("jürgen@fabrikam.com")
			w.pass(time.Second)
			want := map[string]uint32{"Vera@fabrikam.com": 2, "VERA@fabrikam.com": 2, "Jürgen@fabrikam.com": 5}
			if exact {
				want = map[string]uint32{"Vera@fabrikam.com": 0, "VERA@fabrikam.com": 0, "Jürgen@fabrikam.com": 0}
			}
			w.wantBadges(want, "what the mail server calls them")
			w.relay.unsubscribe("Vera@fabrikam.com", "VERA@fabrikam.com", "Jürgen@fabrikam.com")
			w.pass(time.Second)
			if n := len(w.daemon.mailboxes.spelled); n != 0 {
				t.Errorf("%d names are kept of mailboxes that have no device", n)
			}
		})
	}
}

func TestWhatMayHaveBeenMissedIsCountedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.CountsPerSecond = 10 })
		want := make(map[string]uint32)
		for _, m := range []string{"ann", "bob", "cat"} {
			w.relay.subscribe(m)
			want[m] = 3
		}
		w.start()
		w.pass(time.Second)
		w.wantAsked(3, 3, "the start")
		for m := range want {
			w.server.set(m, 3)
		}
		for range 5 {
			w.server.sink.Missed()
		}
		w.pass(time.Second)
		w.wantAsked(3, 4, "each once, at the pace")
		w.wantBadges(want, "nothing stays wrong")
	})
}

func TestWhatIsMissedWhileAMailboxIsAskedKeepsThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.CountsPerSecond = 10 })
		w.relay.subscribe("ann", "bob", "cat")
		w.start()
		w.pass(time.Second)
		w.wantAsked(3, 3, "the start")
		w.server.mu.Lock()
		w.server.slow = 10 * time.Millisecond
		w.server.mu.Unlock()
		for range 18 { // the second comes while a mailbox is asked
			w.server.sink.Missed()
			w.pass(5 * time.Millisecond)
		}
		w.pass(time.Second)
		w.wantAsked(4, 4, "each once, and the first again, at the pace")
	})
}
