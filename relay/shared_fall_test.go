package relay

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// shows has APNs accept everything for a while, and returns the badges in their order.
func shows(during time.Duration, relays ...*harness) (badges []uint32) {
	for began := time.Now(); time.Since(began) < during; {
		relays[0].after(100 * time.Millisecond)
		for _, h := range relays {
			pushes := h.pool.taken()
			for _, p := range pushes {
				badges = append(badges, p.Badge)
			}
			h.answer(nil, pushes...)
		}
	}
	return badges
}

func (h *harness) wantShown(why string, during time.Duration, want ...uint32) {
	h.t.Helper()
	if got := shows(during, h); fmt.Sprint(got) != fmt.Sprint(want) {
		h.t.Errorf("%s: it shows %v, want %v", why, got, want)
	}
}

// TestFallWaitsForNobody has a mailbox leave a device while its organization waits for
// another one: what it counted is gone at once, and the rest is pushed once more with what
// was awaited.
func TestFallWaitsForNobody(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribeToo(org, "b", phone(1))
		h.after(time.Second)
		ours := h.relay.OpenStream(org, "mx")
		h.submit(ours, count("a", 2))
		h.after(2 * exchangePause) // one after the other: one exchange may tell of the first alone
		h.submit(ours, count("b", 3))
		h.accept("", "1=5")
		h.registry.subscribeToo(org, "never", phone(1))
		h.submit(ours, count("a", 4))
		h.after(2 * exchangePause)
		h.wantPushes("a waits for never")
		h.registry.unsubscribe(org, "b", phone(1))
		h.after(2 * exchangePause)
		h.accept("b's part is gone, and a's is what it was", "1=2")
		h.wantSettled(ours, "through 2")
		h.after(partTimeout)
		h.accept("", "1=4")
		h.wantSettled(ours, "through 3")
		ours.Close()
	})
}

// TestFallToNothing has a device move to mailboxes of which nobody has reported any, or
// one: what it showed is gone all the same, after a moment.
func TestFallToNothing(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribeToo(org, "b", phone(1))
		h.after(time.Second)
		ours := h.relay.OpenStream(org, "mx")
		h.submit(ours, count("a", 1), count("b", 2))
		h.after(time.Second)
		h.acceptAll()
		h.registry.setDevice(org, phone(1), "c", "d")
		h.wantShown("nobody reports the new ones", time.Minute/2, 0)
		h.submit(ours, count("c", 7))
		h.wantShown("c waits for d", time.Minute, 7)
		ours.Close()
	})
}

// TestFallIsNotForgotten has the only mailbox that was reported leave a device, which is
// exchanged again before APNs has answered.
func TestFallIsNotForgotten(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribeToo(other, "never", phone(1))
		h.after(time.Second)
		ours := h.relay.OpenStream(org, "mx")
		h.submit(ours, count("a", 3))
		h.accept("", "1=3")
		h.after(2 * partTimeout)
		h.pool.setRoom(0)
		h.registry.unsubscribe(org, "a", phone(1))
		h.after(100 * time.Millisecond)
		h.registry.subscribeToo(other, "never too", phone(1))
		h.after(100 * time.Millisecond)
		h.pool.setRoom(1000)
		h.wantShown("", time.Minute, 0)
		ours.Close()
	})
	twoRelays(t, 1, func(one, two *harness, ours, _ *Stream) { // the one that does not push hears first
		one.settled(ours)
		two.registry.unsubscribeUnheard(MailboxKey{org, "a"}, phone(1))
		two.relay.SubscriptionsChanged([]MailboxKey{{org, "a"}})
		two.relay.DevicesShared([]DeviceKey{{app, phone(1)}})
		two.after(100 * time.Millisecond)
		one.relay.SubscriptionsChanged([]MailboxKey{{org, "a"}})
		if got := shows(time.Minute, one, two); len(got) == 0 || got[0] != 0 {
			t.Errorf("it shows %v, want 0", got)
		}
	})
}

// TestFallWhileAStrangerWaits has the only mailbox that was reported leave a device, on
// which another organization's count waits, within the window of the push before.
func TestFallWhileAStrangerWaits(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		ours, theirs := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
		h.submit(ours, count("a", 3))
		h.after(3 * time.Second)
		h.acceptAll()
		h.registry.subscribeToo(other, "t", phone(1))
		h.registry.subscribeToo(other, "never", phone(1))
		h.after(time.Second)
		h.acceptAll()
		h.submit(theirs, count("t", 2))
		h.submit(ours, count("a", 4))
		h.wantShown("", 2*time.Second, 4)
		h.submit(ours, count("a", 5))
		h.wantShown("", 200*time.Millisecond, 5)
		h.registry.unsubscribe(org, "a", phone(1))
		h.wantShown("", 10*time.Second, 0)
		h.wantShown("", partTimeout, 2)
		ours.Close()
		theirs.Close()
	})
}

// TestStrangerMovesADeviceOn has a stranger move a device from one mailbox to another, as
// often as it can: the sum falls by what leaves meanwhile.
func TestStrangerMovesADeviceOn(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		const third = OrganizationID(3)
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribeToo(third, "y", phone(1))
		h.registry.subscribeToo(other, "first", phone(1))
		h.after(time.Second)
		ours, y := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(third, "mx")
		h.submit(ours, count("a", 3))
		h.submit(y, count("y", 1))
		shows(2*partTimeout, h)
		h.registry.setDevice(other, phone(1), "second")
		h.after(100 * time.Millisecond)
		h.registry.unsubscribe(org, "a", phone(1))
		var shown []uint32
		for began := time.Now(); len(shown) == 0 && time.Since(began) < partTimeout; {
			shown = shows(1500*time.Millisecond, h)
			if held := time.Since(began); len(shown) > 0 && held > fallTimeout+2*exchangePause {
				t.Errorf("the fall was held for %v", held)
			}
			h.registry.setDevice(other, phone(1), fmt.Sprint("moved at ", time.Now()))
		}
		if len(shown) == 0 || shown[0] != 1 {
			t.Errorf("it shows %v, want 1", shown)
		}
		ours.Close()
		y.Close()
	})
}

// TestZeroThatWaits has a mailbox leave a device and come again with a count of 0 that
// waits: it is in no sum, though what is not known is 0 as well.
func TestZeroThatWaits(t *testing.T) {
	key := MailboxKey{Organization: org, Mailbox: "a"}
	s := sharedState{acceptedSequence: 7, stored: []storedCount{{target: &target{mailbox: &mailbox{key: key}}, sequence: 5, open: true}}}
	var acts actions
	s.followParts(&SharedDevice{Sequence: 8, Accepted: 7, Parts: []Part{{Key: key, State: PartFirstWaits}}}, 0, &acts)
	if len(s.stored) != 1 || s.stored[0].sequence != sequencePending {
		t.Errorf("it is taken for accepted: %+v", s.stored)
	}
}

// TestPendingIsAskedForOnceASecond counts how often a device is exchanged whose count
// waits, however many hints there are.
func TestPendingIsAskedForOnceASecond(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(other, "a", phone(1))
		h.registry.subscribeToo(other, "never", phone(1))
		h.after(time.Second)
		h.acceptAll()
		theirs := h.relay.OpenStream(other, "mx")
		var n atomic.Int64
		h.registry.whenAsked(func(x *ExchangeRequest, _ *ExchangeResult) { n.Add(int64(len(x.Devices))) })
		h.submit(theirs, count("a", 2))
		for range 400 {
			time.Sleep(hintPause)
			h.relay.SumsChanged()
		}
		if n := n.Load(); n > 25 {
			t.Errorf("it was exchanged %d times in 20 s", n)
		}
		h.wantShown("", time.Minute, 2)
		theirs.Close()
	})
}

// TestDueAfterTheClockWasSet has the database's clock be an hour ahead as a mailbox comes
// that nobody reports, and be right as another one comes.
func TestDueAfterTheClockWasSet(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	before, counted, awaited := MailboxKey{org, "before"}, MailboxKey{org, "counted"}, MailboxKey{org, "never"}
	terms := ExchangeTerms{Relay: "one", Now: now.Add(time.Hour), ShownFor: time.Hour, Live: []LivePart{{Key: before}, {Key: counted}}}
	var d SharedDevice
	d.Merge(&SharedUpdate{}, terms)
	terms.Now, terms.Live = now, append(terms.Live, LivePart{Key: awaited, CreatedAt: now})
	d.Merge(&SharedUpdate{}, terms)
	terms.Now = now.Add(time.Second)
	d.Merge(&SharedUpdate{Counts: []ReceivedCount{{counted, 2, terms.Now}}}, terms)
	if in := d.DueAt().Sub(now); !d.part(counted).waits() || in != partTimeout {
		t.Errorf("a relay looks in %v, want %v", in, partTimeout)
	}
}
