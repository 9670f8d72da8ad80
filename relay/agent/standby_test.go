package agent

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"
)

// standby tells the agent that another process is active, or is gone.
func (s *fakeStream) standby(standby bool) {
	s.t.Helper()
	m := &badgerelayv1.StreamResponse{Message: &badgerelayv1.StreamResponse_Takeover{Takeover: &badgerelayv1.Takeover{}}}
	if standby {
		m = &badgerelayv1.StreamResponse{Message: &badgerelayv1.StreamResponse_Standby{Standby: &badgerelayv1.Standby{}}}
	}
	s.send(m)
	synctest.Wait()
}

// TestStandbyHoldsEverythingBack stands by, and sends the newest counts when it
// takes over.
func TestStandbyHoldsEverythingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		a := network.start("a")
		cfg := network.config("a")
		var takeovers atomic.Int32
		cfg.OnTakeover = func() { takeovers.Add(1) }
		h := run(t, cfg)
		s := a.welcome(surviving())
		h.set("ann", 1)
		h.set("bob", 1)
		h.set("eve", 1)
		s.batch(1, "ann=1", "bob=1", "eve=1")

		s.standby(true)
		if !h.a.Status().Standby {
			t.Error("the status does not say that it stands by")
		}
		h.set("ann", 2)
		h.set("fay", 1)
		s.settle(3, outcome(1, badgerelayv1.Outcome_OUTCOME_SUPERSEDED), outcome(2, badgerelayv1.Outcome_OUTCOME_STANDBY))
		h.want("eve=1 delivered") // ann's newer count and bob's, which the relay did not take, are held
		h.set("fay", 2)
		time.Sleep(time.Hour)
		h.want("eve=1 delivered")
		if n := takeovers.Load(); n != 0 {
			t.Errorf("told %d times that it has taken over, and it stands by", n)
		}

		s.standby(false)
		began := time.Now()
		if n := takeovers.Load(); n != 1 || h.a.Status().Standby {
			t.Errorf("told %d times that it has taken over, want once; status %+v", n, h.a.Status())
		}
		s.batch(4, "ann=2", "fay=2", "bob=1") // and not eve's, which has settled: the other process may have sent a newer one
		s.settle(6)
		h.set("gil", 1)
		s.batch(7, "gil=1")
		s.settle(7)
		once := s.recv().GetBatch()
		if n := len(once.GetEvents()); n != 4 || time.Since(began) < time.Minute || time.Since(began) > time.Minute+time.Second {
			t.Errorf("sent once more %d counts after %v, want all four after a minute: the other process may have had them in flight", n, time.Since(began))
		}
		s.settle(11)
		time.Sleep(time.Hour)
		h.set("ann", 3)
		s.batch(12, "ann=3")
		s.settle(12)
		if n := len(h.a.set.entries); n > 0 {
			t.Errorf("%d entries are held for nothing", n)
		}
	})
}

// TestActiveOnTheNextStream stands by until its relay restarts, and finds that it is active
// from then on: the other process has gone meanwhile, and no relay tells of a takeover.
func TestActiveOnTheNextStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		a := network.start("a")
		cfg := network.config("a")
		var takeovers atomic.Int32
		cfg.OnTakeover = func() { takeovers.Add(1) }
		h := run(t, cfg)
		s := a.welcome(surviving())
		s.standby(true)
		h.set("ann", 1)
		s.end <- status.Error(codes.Unavailable, "restarts")

		s = a.welcome(surviving())
		s.batch(1, "ann=1")
		s.standby(true)
		s.settle(1, outcome(1, badgerelayv1.Outcome_OUTCOME_STANDBY))
		s.end <- status.Error(codes.Unavailable, "restarts")
		if n := takeovers.Load(); n != 0 {
			t.Errorf("told %d times that it has taken over, and it stands by", n)
		}

		s = a.welcome(surviving())
		s.batch(1, "ann=1")
		s.settle(1)
		h.want("ann=1 delivered")
		if n := takeovers.Load(); n != 1 {
			t.Errorf("told %d times that it has taken over, want once", n)
		}
		s.batch(2, "ann=1") // the other process may have had a count in flight
		s.settle(2)
		s.end <- status.Error(codes.Unavailable, "restarts")

		s = a.welcome(surviving())
		h.set("ann", 2)
		s.batch(1, "ann=2")
		s.settle(1)
		if n := takeovers.Load(); n != 1 {
			t.Errorf("told %d times that it has taken over, want once", n)
		}
	})
}

// TestTakeoverSendsNothingThatHasSettled stands by while counts are held to be sent once
// more: they must not go over what the other process has sent since.
func TestTakeoverSendsNothingThatHasSettled(t *testing.T) {
	for name, tt := range map[string]struct {
		standBy func(*fakeStream)
		last    uint64 // sequence number that was sent
	}{
		"before":             {func(s *fakeStream) { s.settle(2); s.standby(true) }, 2},
		"while it stands by": {func(s *fakeStream) { s.standby(true); s.settle(2) }, 2},
		"and is in flight once more": {func(s *fakeStream) {
			s.settle(2)
			s.batch(3, "ann=1", "bob=1")
			s.standby(true)
			s.settle(3, turnedAway(3))
		}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newFakeNet(t)
				a := network.start("a")
				h := run(t, network.config("a"))
				s := a.welcome(surviving())
				h.set("ann", 1)
				h.set("bob", 1)
				s.batch(1, "ann=1", "bob=1")
				tt.standBy(s)
				h.want("ann=1 delivered", "bob=1 delivered")
				h.set("fay", 1)
				time.Sleep(2 * time.Hour)
				s.standby(false)
				s.batch(tt.last+1, "fay=1")
				s.settle(tt.last + 1)
				s.batch(tt.last+2, "fay=1") // once more, after a minute
				s.settle(tt.last + 2)
				synctest.Wait()
				if n := len(h.a.set.entries); n > 0 {
					t.Errorf("%d entries are held for nothing", n)
				}
			})
		})
	}
}

func turnedAway(sequence uint64) *badgerelayv1.EventOutcome {
	return outcome(sequence, badgerelayv1.Outcome_OUTCOME_STANDBY)
}

// TestCountTurnedAwayGoesOutAfterATakeover has the relay tell of the takeover first, and
// then that it had turned a count away.
func TestCountTurnedAwayGoesOutAfterATakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		a := network.start("a")
		h := run(t, network.config("a"))
		s := a.welcome(surviving())
		time.Sleep(2 * time.Minute) // nothing is uncertain any more
		h.set("bob", 1)
		s.batch(1, "bob=1")
		s.standby(true)
		s.standby(false)
		time.Sleep(time.Second)
		s.settle(1, outcome(1, badgerelayv1.Outcome_OUTCOME_STANDBY))
		began := time.Now()
		s.batch(2, "bob=1")
		if after := time.Since(began); after > time.Second {
			t.Errorf("sent again after %v, want at once", after)
		}
	})
}

// TestNewProcessSendsOnceMore does not know what a process before it, killed with
// its machine, had in flight at another relay.
func TestNewProcessSendsOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		a := network.start("a")
		h := run(t, network.config("a"))
		s := a.welcome(surviving())
		began := time.Now()
		h.set("ann", 1)
		s.batch(1, "ann=1")
		s.settle(1)
		time.Sleep(time.Until(began.Add(time.Minute - time.Second)))
		h.set("bob", 1)
		s.batch(2, "bob=1")
		s.settle(2)
		s.batch(3, "ann=1", "bob=1")
		if got := time.Since(began); got < time.Minute || got > time.Minute+time.Second {
			t.Errorf("sent once more after %v, want a minute", got)
		}
		s.settle(4)
		h.set("ann", 2)
		s.batch(5, "ann=2")
		s.settle(5)
		time.Sleep(time.Hour)
		h.set("bob", 2)
		s.batch(6, "bob=2")
		h.want("ann=1 delivered", "bob=1 delivered", "ann=2 delivered")
		s.settle(6)
		if n := len(h.a.set.entries); n > 0 {
			t.Errorf("%d entries are held for nothing", n)
		}
	})
}
