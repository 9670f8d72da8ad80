package daemon

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestMailboxesThatFailDelayNobody(t *testing.T) {
	for name, fail := range map[string]func(*server, string){
		"no such user":       func(s *server, m string) { s.refused[m] = true },
		"lookup failed":      func(s *server, m string) { s.sick[m] = true },
		"no answer for them": func(s *server, m string) { s.hangs[m] = true },
	} {
		for _, bad := range []int{6, 100} {
			t.Run(fmt.Sprintf("%s/%d", name, bad), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					want := make(map[string]uint32)
					for i := range bad {
						mailbox := fmt.Sprintf("a%03d", i) // sorts first
						w.relay.subscribe(mailbox)
						fail(w.server, mailbox)
					}
					for i := range 50 {
						mailbox := fmt.Sprintf("good%02d", i)
						w.relay.subscribe(mailbox)
						w.server.set(mailbox, uint32(i))
						want[mailbox] = uint32(i)
					}
					w.start()
					first := 10 * time.Second
					if name == "no answer for them" {
						first = time.Duration(bad/4+1)*slowAfter + time.Second // each is tried once
					}
					w.pass(first)
					w.wantBadges(want, "the others were counted")
					w.pass(answerTimeout)
					if uncounted, _ := w.daemon.mailboxes.behind(); uncounted != bad {
						t.Errorf("%d can't be counted, it says, want %d", uncounted, bad)
					}
					for i := range uint32(5) {
						w.pass(time.Minute)
						w.server.set("good07", 100+i)
						w.server.sink.Changed("good07")
						w.pass(100 * time.Millisecond)
						want["good07"] = 100 + i
						w.wantBadges(want, "a change is counted at once while others fail")
					}
				})
			})
		}
	}
}

func TestOneThatFailsIsNotAskedBeforeThoseThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.CountsPerSecond, c.Concurrency = 1, 1 })
		for i := range 100 {
			w.relay.subscribe(fmt.Sprintf("user%02d", i))
		}
		w.relay.subscribe("aaa")
		w.server.sick["aaa"] = true
		w.start()
		w.pass(101 * time.Second)
		w.wantAsked(101, 102, "each once, the one that failed last of all")
		if uncounted, _ := w.daemon.mailboxes.behind(); uncounted != 1 {
			t.Errorf("%d can't be counted, want 1", uncounted)
		}
		w.relay.unsubscribe("aaa")
		w.pass(time.Second)
		if uncounted, _ := w.daemon.mailboxes.behind(); uncounted != 0 {
			t.Errorf("%d can't be counted, want none: its device left", uncounted)
		}
	})
}
