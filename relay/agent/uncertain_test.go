package agent

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"

	"google.golang.org/protobuf/types/known/durationpb"
)

// surviving is a relay's welcome where there are others.
func surviving() *badgerelayv1.Welcome {
	return &badgerelayv1.Welcome{MaxInFlight: durationpb.New(time.Minute)}
}

// TestUncertainCountIsSentOnceMore breaks a stream whose relay may not know
// it: what was in flight goes to the next relay at once, and the newest once
// more when the first has given up.
func TestUncertainCountIsSentOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		a, b := network.start("a"), network.start("b")
		h := run(t, network.config("a", "b"))
		old := a.welcome(surviving())
		for _, m := range []string{"ann", "bob", "eve", "fay", "gil"} {
			h.set(m, 1)
		}
		old.batch(1, "ann=1", "bob=1", "eve=1", "fay=1", "gil=1")
		old.settle(1)
		old.end <- errors.New("broken")
		synctest.Wait()
		began := time.Now()
		s := b.welcome(surviving())
		s.batch(1, "bob=1", "eve=1", "fay=1", "gil=1")
		s.settle(3)
		h.set("eve", 2)
		s.batch(5, "eve=2")
		s.settle(5, outcome(5, badgerelayv1.Outcome_OUTCOME_UNCHANGED))
		results := []string{"ann=1 delivered", "bob=1 delivered", "eve=1 delivered", "fay=1 delivered", "gil=1 delivered", "eve=2 unchanged"}
		h.want(results...)
		h.set("fay", 2)
		s.batch(6, "fay=2") // and it is still in flight when its time comes

		s.batch(7, "ann=1") // settled on the first stream, in whose first minute a process before may have had it in flight
		s.batch(8, "bob=1", "eve=2", "gil=1")
		if got := time.Since(began); got < time.Minute-time.Second || got > time.Minute+time.Second {
			t.Errorf("sent once more after %v, want a minute", got)
		}
		h.set("gil", 3)
		s.batch(11, "gil=3")
		s.settle(9)
		s.batch(12, "fay=2")
		s.settle(12)
		h.want(append(results, "fay=2 delivered", "gil=3 delivered")...)
		time.Sleep(time.Hour)
		h.set("ann", 5)
		s.batch(13, "ann=5")
		s.settle(13)
		if n := len(h.a.set.entries); n > 0 {
			t.Errorf("%d entries are kept for nothing", n)
		}
	})
}

// TestUncertaintyOutlivesAnotherStream has the stream break again before the time has
// come, and while a count is sent once more.
func TestUncertaintyOutlivesAnotherStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		a := network.start("a")
		h := run(t, network.config("a"))
		s := a.welcome(surviving())
		h.set("ann", 1)
		s.batch(1, "ann=1")
		for range 2 {
			s.end <- errors.New("broken")
			s = a.welcome(surviving())
			s.batch(1, "ann=1")
			s.settle(1)
			s.batch(2, "ann=1") // once more
		}
		h.want("ann=1 delivered")
		if err := h.a.WaitSettled(t.Context()); err != nil {
			t.Errorf("waited for what is sent once more: %v", err)
		}
		s.settle(2)
		time.Sleep(time.Hour)
		h.want("ann=1 delivered")
		if n := len(h.a.set.entries); n > 0 {
			t.Errorf("%d entries are kept for nothing", n)
		}
	})
}

// TestUncertaintyTakesNoPlace has a mailbox that is kept because it is uncertain: it is none
// of those that may be unsettled, and becomes one only where there is room.
func TestUncertaintyTakesNoPlace(t *testing.T) {
	now := time.Now()
	a := idle(t, func(c *Config) { c.MaxUnsettled = 1 })
	set := func(mailbox string, unread uint32, want error) {
		t.Helper()
		if err := a.Set(mailbox, unread, 0, 0); !errors.Is(err, want) {
			t.Errorf("Set(%s, %d) = %v, want %v", mailbox, unread, err, want)
		}
		CheckLedger(t, a)
	}
	settle := func(l *inFlight) {
		t.Helper()
		a.set.take(l, 1, now)
		if _, _, err := a.set.settle(l, &badgerelayv1.Settlement{Through: l.last}, now); err != nil {
			t.Fatal(err)
		}
	}
	broken, next := &inFlight{bySequence: map[uint64]*entry{}, maxInFlight: time.Minute}, &inFlight{bySequence: map[uint64]*entry{}}
	set("ann", 1, nil)
	a.set.take(broken, 1, now)
	a.set.release(broken, now)
	settle(next)
	set("bob", 1, nil)
	set("ann", 2, ErrFull)
	settle(next)
	set("ann", 2, nil)
}

func TestNoUncertaintyWhereThereIsOneRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		a := network.start("a")
		h := run(t, network.config("a"))
		h.a.Subscribed("ann")
		s := a.welcome(&badgerelayv1.Welcome{})
		h.a.Subscribed("ann")
		h.set("ann", 1)
		s.batch(1, "ann=1")
		s.end <- errors.New("broken")
		s = a.welcome(&badgerelayv1.Welcome{})
		s.batch(1, "ann=1")
		s.settle(1)
		time.Sleep(time.Hour)
		h.set("ann", 2)
		s.batch(2, "ann=2")
	})
}

// TestStreamsAreNumbered looks at what hellos say.
func TestStreamsAreNumbered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		a := network.start("a")
		run(t, network.config("a"))
		var instance string
		for number := uint64(1); number < 4; number++ {
			s := a.accept()
			hello := s.recv().GetHello()
			if instance == "" {
				instance = hello.GetInstance()
			}
			if hello.GetNumber() != number || hello.GetInstance() != instance || len(instance) < 16 {
				t.Errorf("stream %d of %q, want %d of %q", hello.GetNumber(), hello.GetInstance(), number, instance)
			}
			s.end <- errors.New("broken")
		}
	})
}

// TestCountForAnArrivalIsSentOnceMore has a device come: what is sent of its mailbox
// goes once more when every relay has heard of it.
func TestCountForAnArrivalIsSentOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		a := network.start("a")
		h := run(t, network.config("a"))
		h.a.Subscribed("gil") // told before a relay says for how long that counts
		s := a.welcome(surviving())
		h.set("gil", 1)
		s.batch(1, "gil=1")
		s.settle(1)
		s.batch(2, "gil=1")
		s.settle(2)
		time.Sleep(10 * time.Minute)
		began := time.Now()
		h.a.Subscribed("ann")
		h.set("ann", 1)
		h.set("bob", 1)
		s.batch(3, "ann=1", "bob=1")
		s.settle(4)
		time.Sleep(30 * time.Second)
		h.a.Subscribed("fay")
		h.set("ann", 2)
		h.set("fay", 1)
		s.batch(5, "ann=2", "fay=1")
		s.settle(6)
		for i, want := range []string{"ann=2", "fay=1"} {
			s.batch(uint64(7+i), want)
			s.settle(uint64(7 + i))
			due := time.Duration(2+i) * 30 * time.Second
			if got := time.Since(began); got < due || got > due+2*time.Second {
				t.Errorf("%s is sent once more after %v, want %v", want, got, due)
			}
		}
		time.Sleep(time.Hour)
		h.set("ann", 3)
		s.batch(9, "ann=3")
		s.settle(9)
		time.Sleep(time.Hour)
		if n := len(h.a.set.entries) + len(h.a.set.arrivals.recent) + len(h.a.set.arrivals.before); n > 0 {
			t.Errorf("%d entries and arrivals are kept for nothing", n)
		}
	})
}
