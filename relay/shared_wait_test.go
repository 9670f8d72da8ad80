package relay

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// comeToAStranger has our organization put a device that shows another one's count, 4, on
// two mailboxes of its own: t, and never, which nobody reports.
func (h *harness) comeToAStranger() (ours, theirs *Stream) {
	h.registry.subscribe(other, "a", phone(1))
	ours, theirs = h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
	h.submit(theirs, count("a", 4))
	h.accept("", "1=4")
	h.after(time.Second)
	h.registry.subscribeToo(org, "t", phone(1))
	h.registry.subscribeToo(org, "never", phone(1))
	h.after(time.Second)
	h.answer(nil, h.pool.taken()...) // it is shared
	return ours, theirs
}

// TestStrangersPushDeliversNothingThatWaits has an organization's count wait for its other
// mailbox's, on a device that shows another organization's count already. That one's
// next count goes out at once, without it; its own outcome comes with the whole of its
// part, in each way in which that can come.
func TestStrangersPushDeliversNothingThatWaits(t *testing.T) {
	for name, end := range map[string]func(h *harness, ours, theirs *Stream){
		"reported": func(h *harness, ours, theirs *Stream) {
			h.submit(ours, count("never", 5))
			h.accept("", "1=12")
			h.wantSettled(ours, "through 2")
		},
		"its time is over": func(h *harness, ours, theirs *Stream) {
			h.after(partTimeout - 5*time.Second)
			h.wantPushes("it may still come")
			h.wantSettled(ours, "nothing")
			h.after(6 * time.Second)
			h.accept("", "1=7")
			h.wantSettled(ours, "through 1")
		},
		"it leaves": func(h *harness, ours, theirs *Stream) {
			h.registry.unsubscribe(org, "never", phone(1))
			h.after(2 * exchangePause)
			h.accept("", "1=7")
			h.wantSettled(ours, "through 1")
		},
		"all leave": func(h *harness, ours, theirs *Stream) {
			h.registry.unsubscribe(org, "never", phone(1))
			h.registry.unsubscribe(org, "t", phone(1))
			h.after(2 * exchangePause)
			h.acceptAll()
			h.wantSettled(ours, "through 1, 1 no_subscription")
			h.submit(theirs, count("a", 6))
			h.accept("", "1=6")
		},
		"the stranger leaves": func(h *harness, ours, theirs *Stream) {
			h.registry.unsubscribe(other, "a", phone(1))
			h.after(2 * exchangePause)
			h.accept("its part is gone at once", "1=0")
			h.submit(ours, count("never", 1))
			h.accept("", "1=3")
			h.wantSettled(ours, "through 2")
		},
		"another one of its own comes": func(h *harness, ours, theirs *Stream) {
			h.registry.subscribeToo(org, "more", phone(1))
			h.submit(ours, count("never", 1))
			h.submit(theirs, count("a", 6))
			h.accept("they wait for more as well", "1=6")
			h.wantSettled(ours, "nothing")
			h.submit(ours, count("more", 1))
			h.accept("", "1=10")
			h.wantSettled(ours, "through 3")
		},
		"the relay restarts": func(h *harness, ours, theirs *Stream) {
			h.stop()
			next := newHarnessOn(h.t, h.registry, func(c *Config) { c.Window = -1 })
			defer next.stop()
			synctest.Wait()
			s := next.relay.OpenStream(other, "mx")
			defer s.Close()
			next.submit(s, count("a", 6))
			next.accept("", "1=6")
			next.after(partTimeout)
			next.accept("its time is over", "1=8")
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
				ours, theirs := h.comeToAStranger()
				h.submit(ours, count("t", 2))
				h.wantPushes("no partial sum")
				h.submit(theirs, count("a", 5))
				h.accept("a stranger waits for nobody", "1=5")
				h.wantSettled(ours, "nothing")
				end(h, ours, theirs)
				ours.Close()
				theirs.Close()
			})
		})
	}
}

// TestWaitIsNotProlonged has an organization put a device on further mailboxes that nobody
// reports, while its counts wait for the first of them. They wait for as long as for it
// alone, newer ones and those of other mailboxes too.
func TestWaitIsNotProlonged(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "t", phone(1))
		h.registry.subscribeToo(org, "never", phone(1))
		h.after(time.Second)
		ours := h.relay.OpenStream(org, "mx")
		began := time.Now()
		h.submit(ours, count("t", 2))
		for i := range 2 {
			h.after(25 * time.Second)
			h.registry.subscribeToo(org, fmt.Sprint("never ", i), phone(1))
			h.submit(ours, count("t", uint32(3+i)))
		}
		h.registry.subscribeToo(org, "too", phone(1))
		h.after(time.Second)
		h.submit(ours, count("too", 5))
		h.after(partTimeout - time.Since(began) - 2*time.Second)
		h.wantPushes("never may still come")
		h.wantSettled(ours, "through 2, 1 superseded, 2 superseded")
		h.after(3 * time.Second)
		h.accept("it has had its time", "1=9")
		h.wantSettled(ours, "through 4")

		h.submit(ours, count("t", 1))
		h.after(time.Second)
		h.wantPushes("the others may come still")
		h.after(partTimeout)
		h.accept("they have had theirs", "1=6")
		ours.Close()
	})
}

// TestPartWaitsAtOneRelayAndIsPushedByAnother has the counts of an organization that waits
// come to one relay, and those of another one to the relay that pushes.
func TestPartWaitsAtOneRelayAndIsPushedByAnother(t *testing.T) {
	twoRelays(t, 1, func(one, two *harness, _, theirs *Stream) {
		ours := one.relay.OpenStream(org, "other agent")
		defer ours.Close()
		two.registry.subscribeToo(other, "never", phone(1))
		two.after(2 * exchangePause)
		one.acceptAll()
		two.submit(theirs, count("a", 4))
		one.after(2 * exchangePause)
		one.wantPushes("theirs waits")
		one.submit(ours, count("a", 5))
		one.accept("ours does not", "1=5")
		two.after(2 * exchangePause)
		two.wantSettled(theirs, "nothing")
		two.submit(theirs, count("never", 1))
		one.after(2 * exchangePause)
		one.accept("", "1=10")
		two.after(2 * exchangePause)
		two.wantSettled(theirs, "through 2")
	})
}

// TestWhatWasShownGoesOn has an organization put a device that shows its count on another
// mailbox as well, which nobody has reported. While it is waited for, a stranger's push
// does not take the count from the badge.
func TestWhatWasShownGoesOn(t *testing.T) {
	for _, before := range []bool{false, true} { // the stranger was there before
		bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
			stranger := func() { h.registry.subscribeToo(other, "a", phone(1)); h.after(time.Second) }
			h.registry.subscribe(org, "t", phone(1))
			h.after(time.Second)
			if before {
				stranger()
			}
			ours, theirs := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
			h.submit(ours, count("t", 2))
			h.accept("", "1=2")
			h.after(time.Second)
			h.registry.subscribeToo(org, "never", phone(1))
			h.after(time.Second)
			if !before {
				stranger()
			}
			h.submit(theirs, count("a", 4))
			h.accept("", "1=6")
			h.submit(ours, count("t", 3))
			h.submit(theirs, count("a", 5))
			h.accept("what it had goes on", "1=7")
			h.wantSettled(ours, "through 1")
			h.after(partTimeout)
			h.accept("", "1=8")
			h.wantSettled(ours, "through 2")
			ours.Close()
			theirs.Close()
		})
	}
}

// TestWhatIsForgottenGoesOn has the relay restart, and an organization put a device that it
// shares with another one on a second mailbox. What it is told, and waits for, is as if the
// first one's count had been forgotten, as it would have been without the other; the badge
// goes on with it. So it does where a relay remembers an older count, or none ever comes.
func TestWhatIsForgottenGoesOn(t *testing.T) {
	for name, remembers := range map[string]bool{"an older one is remembered": true, "nothing is": false} {
		t.Run(name, func(t *testing.T) {
			now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
			own, too, theirs := MailboxKey{org, "own"}, MailboxKey{org, "too"}, MailboxKey{other, "theirs"}
			terms := ExchangeTerms{Relay: "one", Now: now, ShownFor: time.Hour, Live: []LivePart{{Key: own}, {Key: theirs}}}
			var d SharedDevice
			d.Merge(&SharedUpdate{Counts: []ReceivedCount{{own, 2, now}, {theirs, 10, now}}}, terms)
			terms.Now, terms.Live = now.Add(time.Second), append(terms.Live, LivePart{Key: too, CreatedAt: now.Add(time.Second)})
			d.Merge(&SharedUpdate{Accepted: d.Sequence}, terms)
			if o := d.Own(org); d.Sum() != 12 || o.part(own).hasCount() || !d.part(own).Awaited(terms.Now) {
				t.Fatalf("the sum is %d, and it is told %+v; want 12, and nothing", d.Sum(), o)
			}
			want := uint32(12)
			if remembers {
				d.Merge(&SharedUpdate{Counts: []ReceivedCount{{own, 1, time.Time{}}}}, terms)
			}
			d.Merge(&SharedUpdate{Counts: []ReceivedCount{{too, 3, terms.Now}}}, terms)
			if remembers {
				want = 15
			}
			if d.Sum() != want {
				t.Fatalf("the sum is %d, want %d", d.Sum(), want)
			}
			terms.Now = now.Add(2 * partTimeout)
			if d.Merge(&SharedUpdate{}, terms); d.Sum() != 15 {
				t.Errorf("a minute later the sum is %d, want 15", d.Sum())
			}
		})
	}
}

// TestPartThatIsThereAnew has a mailbox leave a device and come again, and a relay hear of
// it afterwards: what APNs accepted meanwhile held no count of it.
func TestPartThatIsThereAnew(t *testing.T) {
	key := MailboxKey{Organization: org, Mailbox: "a"}
	s := sharedState{acceptedSequence: 7, stored: []storedCount{{target: &target{mailbox: &mailbox{key: key}}, sequence: 5, open: true}}}
	var acts actions
	s.followParts(&SharedDevice{Parts: []Part{{Key: key}}}, 0, &acts)
	if len(s.stored) > 0 || len(acts.results) > 0 {
		t.Errorf("%+v goes on, and %+v has ended; want it stored anew", s.stored, acts.results)
	}
}

// TestWaitEndsWhileAnotherSumIsRetried has APNs answer a stranger's push with 503, which
// waits a quarter of an hour. The sum that holds what has waited is another payload.
func TestWaitEndsWhileAnotherSumIsRetried(t *testing.T) {
	for _, open := range []bool{true, false} { // the agent is there; or nobody asks
		bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
			ours, theirs := h.comeToAStranger()
			h.submit(ours, count("t", 2))
			h.after(time.Second)
			if !open {
				ours.Close()
			}
			h.submit(theirs, count("a", 5))
			h.answer(unavailable(), h.wantPushes("", "1=5")...)
			h.after(partTimeout + time.Second)
			h.accept("", "1=7")
			h.wantSettled(theirs, "through 2")
			if open {
				h.wantSettled(ours, "through 1")
				ours.Close()
			}
			theirs.Close()
		})
	}
}

// TestDisabledWhileItWaits has an organization be disabled and enabled while its count
// waits: it goes on waiting.
func TestDisabledWhileItWaits(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "t", phone(1))
		h.registry.subscribeToo(org, "never", phone(1))
		h.after(time.Second)
		ours := h.relay.OpenStream(org, "mx")
		h.submit(ours, count("t", 2))
		h.registry.disable(org, true)
		h.after(3 * time.Second)
		h.wantPushes("it keeps what it shows")
		h.registry.disable(org, false)
		h.after(3 * time.Second)
		h.wantPushes("t still waits for never")
		h.after(partTimeout)
		h.accept("", "1=2")
		ours.Close()
	})
}

// TestWaitWhenTheClockIsSet has the database's clock be set, and the clock of the relay
// that took a registration be another one.
func TestWaitWhenTheClockIsSet(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	own, never, theirs := MailboxKey{org, "own"}, MailboxKey{org, "never"}, MailboxKey{other, "theirs"}
	for _, ahead := range []time.Duration{-time.Minute, 0, time.Minute} {
		terms := ExchangeTerms{Relay: "one", Now: now, ShownFor: time.Hour, Live: []LivePart{
			{Key: own, CreatedAt: now.Add(ahead - time.Hour)}, {Key: never, CreatedAt: now.Add(ahead)}, {Key: theirs, CreatedAt: now.Add(ahead - time.Hour)}}}
		var d SharedDevice
		d.Merge(&SharedUpdate{}, terms)
		terms.Now = now.Add(time.Second)
		d.Merge(&SharedUpdate{Counts: []ReceivedCount{{own, 2, now.Add(time.Millisecond)}, {theirs, 4, now}}}, terms)
		if d.Sum() != 4 {
			t.Errorf("clock ahead by %v: the sum is %d, want theirs alone", ahead, d.Sum())
		}
		terms.Now = now.Add(-time.Hour)
		if d.Merge(&SharedUpdate{}, terms); d.Sum() != 6 {
			t.Errorf("clock ahead by %v, then set back by an hour: the sum is %d, want all", ahead, d.Sum())
		}
	}
}

// TestReplacedWhileItWaits has another relay store a newer count of a mailbox whose count
// waits: the older event ends, though no sum is another.
func TestReplacedWhileItWaits(t *testing.T) {
	twoRelays(t, 1, func(one, two *harness, ours, _ *Stream) {
		second := two.relay.OpenStream(org, "second agent")
		defer second.Close()
		one.registry.subscribeToo(org, "never", phone(1))
		two.after(2 * exchangePause)
		one.acceptAll()
		one.settled(ours)
		one.submit(ours, count("a", 5))
		one.after(time.Second)
		two.submit(second, count("a", 7))
		two.after(2 * exchangePause)
		if one.settled(ours) == nil {
			t.Error("the older event is still pending")
		}
	})
}

// TestMoveToWhatAnotherRelayRemembers has a device move from two mailboxes to two others:
// it does not show for a moment that it is on none.
func TestMoveToWhatAnotherRelayRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newMemoryRegistry()
		registry.subscribe(org, "a", phone(1))
		registry.subscribeToo(org, "b", phone(1))
		registry.subscribe(org, "c", phone(2))
		registry.subscribeToo(org, "d", phone(2))
		time.Sleep(time.Millisecond)
		one, two := newSharing(t, registry, "one"), newSharing(t, registry, "two")
		defer one.stop()
		defer two.stop()
		synctest.Wait()
		s1, s2 := one.relay.OpenStream(org, "mx1"), two.relay.OpenStream(org, "mx2")
		defer s1.Close()
		defer s2.Close()
		one.submit(s1, count("a", 1), count("b", 2))
		two.submit(s2, count("c", 3), count("d", 4))
		for range 3 {
			one.after(time.Minute)
			one.acceptAll()
			two.acceptAll()
		}
		registry.setDevice(org, phone(1), "c", "d")
		shown := shows(5*time.Second, one, two)
		if len(shown) == 0 || slices.ContainsFunc(shown, func(badge uint32) bool { return badge != 7 }) {
			t.Errorf("it shows %v, want 7 alone", shown)
		}
	})
}

// TestCountBeforeThePartIsHeardOf has a count come after the registration of a mailbox that
// is awaited, and before the relay hears of it: no other push takes from the badge what
// was there.
func TestCountBeforeThePartIsHeardOf(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "t", phone(1))
		h.after(time.Second)
		ours, theirs := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
		h.submit(ours, count("t", 2))
		h.accept("", "1=2")
		h.after(time.Second)
		h.registry.setApart(true)
		h.registry.subscribeToo(org, "never", phone(1))
		h.after(time.Millisecond)
		h.submit(ours, count("t", 3))
		h.registry.setApart(false)
		h.after(5 * time.Second)
		h.registry.subscribeToo(other, "a", phone(1))
		h.after(time.Second)
		h.submit(theirs, count("a", 4))
		h.accept("", "1=7")
		ours.Close()
		theirs.Close()
	})
}
