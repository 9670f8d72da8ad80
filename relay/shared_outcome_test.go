package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestOutcomesTellNothingOfStrangers has an organization send counts, some of them
// again, reconnect, register again and be quiet, while another one comes to its
// device, moves the badge, and leaves. It is told what it is told without the other.
func TestOutcomesTellNothingOfStrangers(t *testing.T) {
	seeds := uint64(15)
	if raceEnabled {
		seeds = 5
	}
	for seed := range seeds {
		for _, maxInFlight := range []time.Duration{0, time.Minute} {
			alone := toldOf(t, seed, maxInFlight, false)
			if shared := toldOf(t, seed, maxInFlight, true); !slices.Equal(alone, shared) {
				t.Fatalf("seed %d, %v in flight: it is told\n%q\nwith another organization on the device, and without\n%q", seed, maxInFlight, shared, alone)
			}
		}
	}
}

// toldOf returns how the events of an organization end, with what it did.
func toldOf(t *testing.T, seed uint64, maxInFlight time.Duration, strangers bool) (told []string) {
	bubble(t, func(c *Config) { c.Window, c.MaxInFlight = -1, maxInFlight }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.after(time.Second)
		ours, theirs := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
		stranger, random := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
		for range 25 {
			if strangers {
				h.actAsStranger(stranger, theirs)
			}
			h.acceptAll()
			n := uint32(random.IntN(2))
			switch k := random.IntN(12); {
			case k < 7:
				h.submit(ours, count("a", n))
				h.acceptAll()
				got := h.settled(ours)
				told = append(told, fmt.Sprint(n, " ", got))
			case k < 9:
				ours.Close()
				ours = h.relay.OpenStream(org, "mx")
				told = append(told, "reconnects")
			case k < 10:
				h.registry.subscribe(org, "a", phone(1))
				told = append(told, "registers")
			case k < 11:
				h.after(3 * compactAfter)
				told = append(told, "is compacted")
			default:
				h.after(2 * time.Minute)
				told = append(told, "waits")
			}
		}
		h.acceptAll()
		ours.Close()
		theirs.Close()
	})
	return told
}

// actAsStranger has the other organization do something with the device.
func (h *harness) actAsStranger(random *rand.Rand, theirs *Stream) {
	switch random.IntN(4) {
	case 0:
		h.registry.subscribeToo(other, "a", phone(1))
	case 1:
		h.registry.unsubscribe(other, "a", phone(1))
	default:
		h.submit(theirs, count("a", uint32(random.IntN(3))))
	}
}

// acceptAll accepts what is pushed, until nothing has been for a while.
func (h *harness) acceptAll() {
	for range 4 {
		h.after(2 * exchangePause)
		h.answer(nil, h.pool.taken()...)
	}
}

// TestSameCountIsInASumElsewhere has two agents of a mailbox send the same count to two
// relays. The one that received it first stores it last: it does not say that it was
// delivered before APNs has accepted the other's sum.
func TestSameCountIsInASumElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newMemoryRegistry()
		registry.subscribe(org, "a", phone(1)) // alone there
		registry.subscribe(org, "a", phone(2))
		registry.subscribeToo(org, "b", phone(2))
		one, two := newSharing(t, registry, "one"), newSharing(t, registry, "two")
		defer one.stop()
		defer two.stop()
		synctest.Wait()
		first, second := one.relay.OpenStream(org, "mx1"), two.relay.OpenStream(org, "mx2")
		defer first.Close()
		defer second.Close()
		two.submit(second, count("a", 1), count("b", 1))
		two.after(2 * time.Minute) // no push of before can be on its way any more
		two.acceptAll()
		two.settled(second)

		registry.setApartFrom("one")
		one.submit(first, count("a", 5))
		one.accept("the device that is on one mailbox", "1=5")
		one.after(3 * time.Millisecond)
		two.submit(second, count("a", 5))
		sums := two.pool.taken()
		registry.setApartFrom("")
		one.after(5 * time.Second)
		if got := one.settled(first); got != nil {
			t.Errorf("settled as %v before APNs has accepted the sum", got)
		}
		two.answer(nil, sums...)
		two.acceptAll()
		if got := one.settled(first); !slices.Equal(got, []Outcome{OutcomeDelivered}) {
			t.Errorf("settled as %v, want it delivered", got)
		}
	})
}

// TestCountIsReplacedInASum has a count wait for its sum to be pushed, while another agent
// sends a newer one of the mailbox to another relay: APNs has never accepted the first.
func TestCountIsReplacedInASum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newMemoryRegistry()
		registry.subscribe(org, "a", phone(1))
		registry.subscribeToo(org, "b", phone(1))
		one, two := newSharing(t, registry, "one"), newSharing(t, registry, "two")
		defer one.stop()
		defer two.stop()
		synctest.Wait()
		first, second := one.relay.OpenStream(org, "mx1"), two.relay.OpenStream(org, "mx2")
		defer first.Close()
		defer second.Close()
		one.submit(first, count("a", 1), count("b", 1))
		one.after(2 * time.Minute) // no push of before can be on its way any more
		one.acceptAll()
		one.settled(first)

		one.pool.setRoom(0)
		one.submit(first, count("a", 5))
		one.after(2 * time.Second)
		two.submit(second, count("a", 7))
		one.after(2 * time.Second)
		one.pool.setRoom(10)
		one.accept("the sum", "1=8")
		one.after(2 * time.Second)
		if got := one.settled(first); !slices.Equal(got, []Outcome{OutcomeSuperseded}) {
			t.Errorf("what was replaced is settled as %v, want it superseded", got)
		}
		if got := two.settled(second); !slices.Equal(got, []Outcome{OutcomeDelivered}) {
			t.Errorf("what was pushed is settled as %v, want it delivered", got)
		}
	})
}

// settled returns how a stream's events ended.
func (h *harness) settled(s *Stream) (outcomes []Outcome) {
	h.t.Helper()
	synctest.Wait()
	ctx, cancel := context.WithCancel(h.t.Context())
	cancel() // what has not settled by now is not expected
	for {
		got, err := s.Next(ctx)
		if err != nil {
			return outcomes
		}
		outcome := OutcomeDelivered
		for _, o := range got.Outcomes {
			outcome = o.Outcome
		}
		outcomes = append(outcomes, outcome)
	}
}
