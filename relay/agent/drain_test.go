package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"
)

func TestDrainMovesOnAndReadsTheOldStreamToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		a, b := network.start("a"), network.start("b")
		h := run(t, network.config("a", "b"))
		old := a.welcome(&badgerelayv1.Welcome{})
		for _, m := range []string{"ann", "bob", "eve"} {
			h.set(m, 1)
		}
		old.batch(1, "ann=1", "bob=1", "eve=1")
		old.drain(10 * time.Second)
		s := b.welcome(&badgerelayv1.Welcome{})
		h.set("dan", 4)
		s.batch(1, "dan=4")
		old.settle(1)
		h.want("ann=1 delivered")
		h.set("bob", 2) // newer than what is in flight on the old stream, which it must not overtake
		h.set("eve", 2)
		h.set("fay", 1)
		s.batch(2, "fay=1")
		old.settle(2)
		h.want("ann=1 delivered")
		s.batch(3, "bob=2")
		time.Sleep(10 * time.Second) // grace is over: the rest goes
		s.batch(4, "eve=2")
		s.settle(4)
		h.want("ann=1 delivered", "dan=4 delivered", "fay=1 delivered", "bob=2 delivered", "eve=2 delivered")
		h.wantFailures(FailureDraining)
	})
}

func TestDrainEndsWhenNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		a, b := network.start("a"), network.start("b")
		h := run(t, network.config("a", "b"))
		old := a.welcome(&badgerelayv1.Welcome{})
		h.set("ann", 1)
		old.batch(1, "ann=1")
		old.drain(time.Hour)
		b.welcome(&badgerelayv1.Welcome{})
		old.settle(1)
		h.want("ann=1 delivered")
		if err := old.rpc.Context().Err(); !errors.Is(err, context.Canceled) {
			t.Fatalf("old stream after its last settlement: %v, want canceled", err)
		}
	})
}

func TestDrainWithOneAddressComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		a := network.start("a")
		h := run(t, network.config("a"))
		a.welcome(&badgerelayv1.Welcome{}).drain(0)
		began := time.Now()
		s := a.welcome(&badgerelayv1.Welcome{})
		if got := time.Since(began); got > 500*time.Millisecond {
			t.Fatalf("came back after %v, want within the least backoff", got)
		}
		h.set("ann", 1)
		s.batch(1, "ann=1")
	})
}
