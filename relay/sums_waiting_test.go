package relay

import (
	"testing"
	"testing/synctest"
	"time"
)

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
			h.wantPushes("what is left waits")
			h.submit(ours, count("never", 1))
			h.accept("", "1=3")
			h.wantSettled(ours, "through 2")
		},
		"another one of its own comes": func(h *harness, ours, theirs *Stream) {
			h.registry.subscribeToo(org, "more", phone(1))
			h.submit(ours, count("never", 1))
			h.submit(theirs, count("a", 6))
			h.accept("more is awaited, and those before it are complete", "1=9")
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
				h.registry.subscribe(other, "a", phone(1))
				ours, theirs := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
				h.submit(theirs, count("a", 4))
				h.accept("", "1=4")
				h.after(time.Second)
				h.registry.subscribeToo(org, "t", phone(1))
				h.registry.subscribeToo(org, "never", phone(1))
				h.after(time.Second)
				h.answer(nil, h.pool.taken()...) // it is shared
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
			h.accept("", "1=8")
			h.wantSettled(ours, "through 1")
			h.after(partTimeout)
			h.accept("", "1=8")
			h.wantSettled(ours, "through 2")
			ours.Close()
			theirs.Close()
		})
	}
}
