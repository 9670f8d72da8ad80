package relay

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
)

// other is an organization beside org.
const other OrganizationID = 2

// shared puts a phone on mailboxes of org and of the other organization, whose
// streams it opens. There is no window unless a test is about it.
func shared(t *testing.T, change func(*Config), f func(h *harness, ours, theirs *Stream)) {
	t.Helper()
	bubble(t, func(c *Config) {
		c.Window = -1
		if change != nil {
			change(c)
		}
	}, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribe(other, "a", phone(1))
		h.after(time.Millisecond) // what is stored is newer than the registration
		ours, theirs := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
		f(h, ours, theirs)
		ours.Close()
		theirs.Close()
	})
}

// TestRefusalFromBeforeTheRegistration has APNs call a shared device gone whose app
// registers anew while the push is in flight: the count goes out once more, and only what
// APNs says of that push is believed.
func TestRefusalFromBeforeTheRegistration(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(ours, count("a", 3))
		h.submit(theirs, count("a", 4))
		h.accept("", "1=3")
		h.accept("", "1=7")
		h.wantSettled(ours, "through 1")
		h.submit(ours, count("a", 5))
		pushes := h.wantPushes("", "1=9")
		h.after(time.Second)
		h.registry.subscribe(org, "a", phone(1))
		h.after(time.Second)
		gone := &apns.Error{Status: 410, Reason: apns.ReasonUnregistered, Timestamp: time.Now().Add(-time.Hour)}
		h.answer(gone, pushes...)
		h.after(2 * exchangePause)
		h.answer(gone, h.wantPushes("the registration is newer than the push", "1=9")...)
		h.after(2 * exchangePause)
		h.wantPushes("this one is believed")
		h.answer(nil, h.pool.taken()...)
	})
}

// TestSum goes through what a device on two mailboxes shows.
func TestSum(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(ours, count("a", 3))
		h.accept("what another organization has not reported counts nothing", "1=3")
		h.wantSettled(ours, "through 1")
		h.submit(theirs, count("a", 4))
		h.accept("the sum", "1=7")
		h.wantSettled(theirs, "through 1")
		h.submit(ours, count("a", 0))
		h.accept("0 is a count", "1=4")
		h.submit(theirs, count("a", 0))
		h.accept("", "1=0")
		h.submit(ours, count("a", MaxUnread))
		h.accept("", "1=2147483647")
		h.submit(theirs, count("a", MaxUnread))
		h.accept("a badge has a greatest number", "1=2147483647")
	})
}

// TestSumSettles holds events and pushes against each other.
func TestSumSettles(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(ours, count("a", 1))
		first := h.wantPushes("", "1=1")
		h.submit(theirs, count("a", 2))
		h.wantPushes("one push in flight per device, whoever asks")
		h.answer(nil, first...)
		h.wantSettled(ours, "through 1")
		h.wantSettled(theirs, "nothing")
		second := h.wantPushes("the sum of all that came meanwhile", "1=3")
		h.submit(ours, count("a", 5))
		h.submit(ours, count("a", 6))
		h.wantSettled(ours, "through 2, 2 superseded")
		h.answer(unavailable(), second...)
		third := h.wantPushes("another sum need not wait for the refused one's time", "1=8")
		h.wantSettled(theirs, "nothing")
		h.answer(nil, third...)
		h.wantSettled(theirs, "through 1")
		h.wantSettled(ours, "through 3")
	})
}

// TestSumTellsAnOrganizationOfItsOwnPartAlone compares what an organization is
// told where it has the device for itself and where it has not.
func TestSumTellsAnOrganizationOfItsOwnPartAlone(t *testing.T) {
	for _, theirCounts := range [][]uint32{nil, {7}, {3, 4, 3}, {7, 0, 7}} {
		shared(t, nil, func(h *harness, ours, theirs *Stream) {
			acceptAll := func() {
				for {
					synctest.Wait()
					pushes := h.pool.taken()
					if len(pushes) == 0 {
						return
					}
					h.answer(nil, pushes...)
				}
			}
			for i, step := range []struct {
				count uint32
				want  string
			}{
				{7, "delivered"}, {7, "unchanged"}, {3, "delivered"}, {4, "delivered"}, {4, "unchanged"}, {0, "delivered"}, {0, "unchanged"},
			} {
				for _, n := range theirCounts {
					h.submit(theirs, count("a", n))
					acceptAll()
				}
				h.submit(ours, count("a", step.count))
				acceptAll()
				want := fmt.Sprint("through ", i+1)
				if step.want != "delivered" {
					want += fmt.Sprint(", ", i+1, " ", step.want)
				}
				h.wantSettled(ours, want)
			}
		})
	}
}

// TestSumWaitsForItsOwnOrganization: of two mailboxes of one organization no
// partial sum is shown, and another organization waits for neither.
func TestSumWaitsForItsOwnOrganization(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.registry.subscribeToo(org, "b", phone(1))
		h.submit(ours, count("a", 1))
		h.wantPushes("b is not reported yet")
		h.submit(theirs, count("a", 10))
		h.accept("a stranger does not wait for b, and has nothing partial shown", "1=10")
		h.wantSettled(theirs, "through 1")
		h.wantSettled(ours, "nothing")
		h.submit(ours, count("a", 2))
		h.after(partTimeout - 3*time.Second)
		h.wantPushes("b may still come")
		h.after(4 * time.Second)
		h.accept("b has had its time", "1=12")
		h.submit(ours, count("b", 5))
		h.accept("", "1=17")
		h.wantSettled(ours, "through 3, 1 superseded")
	})
}

// TestSumFallsByThePartThatLeaves has mailboxes leave a device in every way.
func TestSumFallsByThePartThatLeaves(t *testing.T) {
	for name, leave := range map[string]func(h *harness){
		"unsubscribed": func(h *harness) { h.registry.unsubscribe(other, "a", phone(1)) },
		"unsubscribed while compact": func(h *harness) {
			h.after(3 * compactAfter)
			h.registry.unsubscribe(other, "a", phone(1))
		},
		"moved to another mailbox": func(h *harness) {
			h.registry.subscribe(other, "b", phone(1))
			h.after(fallTimeout + 2*exchangePause)
			h.accept("its old mailbox's part is gone, though nobody has reported the new one's", "1=3")
			h.after(exchangePause)
			h.registry.unsubscribe(other, "b", phone(1)) // each change of a sum is pushed, though the number is the same
		},
		"organization removed": func(h *harness) {
			h.registry.unsubscribe(other, "a", phone(1))
			h.relay.OrganizationGone(other)
		},
		"organization disabled": func(h *harness) { h.registry.disable(other, true); h.relay.SumsChanged() },
	} {
		t.Run(name, func(t *testing.T) {
			shared(t, nil, func(h *harness, ours, theirs *Stream) {
				h.submit(ours, count("a", 3))
				h.accept("", "1=3")
				h.submit(theirs, count("a", 4))
				h.accept("", "1=7")
				leave(h)
				h.after(exchangePause)
				h.accept("the part is gone at once", "1=3")
				h.after(exchangePause)
				h.submit(ours, count("a", 5))
				h.accept("", "1=5")
			})
		})
	}
}

// TestDeviceOnOneMailboxAgainCostsNoExchange: nothing is left of the sum.
func TestDeviceOnOneMailboxAgainCostsNoExchange(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(ours, count("a", 3))
		h.submit(theirs, count("a", 4))
		h.accept("", "1=3")
		h.accept("", "1=7")
		h.registry.unsubscribe(other, "a", phone(1))
		h.after(2 * exchangePause)
		h.accept("", "1=3")
		h.after(2 * exchangePause)
		if n := h.relay.Stats().Shared; n != 0 {
			h.t.Errorf("%d devices are shared, want none", n)
		}
		before := h.registry.exchanged()
		for n := range uint32(10) {
			h.submit(ours, count("a", n))
			h.accept("", fmt.Sprint("1=", n))
			h.after(time.Minute)
		}
		if n := h.registry.exchanged() - before; n != 0 {
			h.t.Errorf("%d exchanges for a device on one mailbox", n)
		}
	})
}

// TestSumBecomesShared has a second mailbox come to a device, whose first one's
// count is remembered.
func TestSumBecomesShared(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		bubble(t, nil, func(h *harness) {
			h.registry.subscribe(org, "a", phone(1))
			ours, theirs := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
			h.submit(ours, count("a", 3))
			h.accept("", "1=3")
			if quiet {
				h.after(3 * compactAfter)
				h.wantCompact(1, "a is quiet")
			}
			h.registry.subscribe(other, "a", phone(1))
			h.submit(theirs, count("a", 4))
			h.after(time.Second) // the window
			h.accept("nobody was asked for what the relay remembers", "1=7")
			h.wantSettled(theirs, "through 1")
			ours.Close()
			theirs.Close()
		})
	}
}

// TestSumAfterRestart: the first push of another process is the right sum.
func TestSumAfterRestart(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(ours, count("a", 3))
		h.accept("", "1=3")
		h.submit(theirs, count("a", 4))
		h.wantPushes("in flight when the process is killed", "1=7")
		h.stop()
		next := newHarnessOn(h.t, h.registry, func(c *Config) { c.Window = -1 })
		defer next.stop()
		synctest.Wait()
		next.accept("what was not accepted goes at once", "1=7")
		s := next.relay.OpenStream(org, "mx")
		next.submit(s, count("a", 3))
		next.wantPushes("it is in the sum")
		next.wantSettled(s, "through 1") // as of a device on one mailbox, of which nothing is known any more
		next.submit(s, count("a", 5))
		next.accept("theirs is known without them", "1=9")
		s.Close()
	})
}

// TestSumWithoutRegistry: shared devices wait, all others go on.
func TestSumWithoutRegistry(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.registry.subscribe(org, "alone", phone(2))
		h.submit(ours, count("alone", 1))
		h.submit(theirs, count("a", 10))
		h.accept("", "2=1", "1=10")
		h.submit(ours, count("a", 1))
		h.accept("", "1=11")
		h.registry.setFails(true)
		h.submit(ours, count("alone", 2), count("a", 2))
		h.accept("", "2=2")
		h.after(time.Minute)
		h.wantPushes("its count is not stored")
		h.registry.setFails(false)
		h.after(5 * time.Second)
		h.accept("", "1=12")
		h.wantSettled(ours, "through 4")
	})
}

// TestSumWhenTheFirstExchangeFails: among several relays an exchange reads the
// shared clock before it gathers anything.
func TestSumWhenTheFirstExchangeFails(t *testing.T) {
	shared(t, func(c *Config) { c.MaxInFlight = time.Minute }, func(h *harness, ours, theirs *Stream) {
		h.submit(ours, count("a", 1))
		h.accept("", "1=1")
		h.registry.setApart(true)
		h.submit(theirs, count("a", 2))
		h.wantPushes("its count is not stored")
		h.after(10 * time.Second)
		h.registry.setApart(false)
		h.after(5 * time.Second)
		h.accept("", "1=3")
		h.wantSettled(theirs, "through 1")
		h.after(time.Minute)
		h.accept("a relay that had not heard of it may have pushed since", "1=3")
		h.after(2 * time.Minute)
		h.wantPushes("once is enough")
	})
}

// TestSumOfTwoRelays has two relays serve a device's mailboxes. One of them pushes
// until it is not heard of, or leaves.
func TestSumOfTwoRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newMemoryRegistry()
		registry.subscribe(org, "a", phone(1))
		registry.subscribe(other, "a", phone(1))
		time.Sleep(time.Millisecond)
		one, two := newSharing(t, registry, "one"), newSharing(t, registry, "two")
		defer two.stop()
		synctest.Wait()
		ours, theirs := one.relay.OpenStream(org, "mx"), two.relay.OpenStream(other, "mx")
		defer theirs.Close()
		one.submit(ours, count("a", 3))
		one.accept("", "1=3")
		two.submit(theirs, count("a", 4))
		two.wantPushes("one pushes")
		one.after(exchangePause)
		one.accept("it has looked for what is due", "1=7")
		two.wantSettled(theirs, "nothing")
		two.after(exchangePause)
		two.wantSettled(theirs, "through 1")
		two.wantPushes("")

		one.after(time.Minute) // it became shared a minute ago
		one.accept("once more", "1=7")
		two.submit(theirs, count("a", 5))
		one.after(exchangePause)
		push := one.wantPushes("in flight", "1=8")
		registry.setSilent("one", true) // it is frozen, say
		two.after(exchangePause)
		two.accept("taken over, whatever one has in flight", "1=8")
		two.wantSettled(theirs, "through 2")
		registry.setSilent("one", false)
		one.answer(nil, push...)
		one.submit(ours, count("a", 1))
		two.after(exchangePause)
		two.accept("two pushes now", "1=6")
		one.after(exchangePause)
		one.wantPushes("")
		one.wantSettled(ours, "through 2")
		ours.Close()
		one.stop()
	})
}

// TestSumThatWaitsWhileAnotherRelayTakesOver: a relay that has not been heard of for a
// while asks who pushes before it sends what waited meanwhile.
func TestSumThatWaitsWhileAnotherRelayTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newMemoryRegistry()
		registry.subscribe(org, "a", phone(1))
		registry.subscribe(other, "a", phone(1))
		time.Sleep(time.Millisecond)
		one, two := newSharing(t, registry, "first"), newSharing(t, registry, "second")
		defer two.stop()
		defer one.stop()
		synctest.Wait()
		ours, theirs := one.relay.OpenStream(org, "mx"), two.relay.OpenStream(other, "mx")
		defer theirs.Close()
		defer ours.Close()
		one.submit(ours, count("a", 3))
		one.accept("", "1=3")
		one.pool.setRoom(0)
		one.submit(ours, count("a", 5))
		synctest.Wait()
		registry.setApartFrom("first")
		registry.setSilent("first", true)
		two.submit(theirs, count("a", 6))
		two.after(exchangePause)
		two.accept("taken over", "1=11")
		one.after(time.Minute)
		registry.setApartFrom("")
		registry.setSilent("first", false)
		one.after(5 * time.Second)
		one.pool.setRoom(1000)
		synctest.Wait()
		one.wantPushes("two pushes now")
		one.after(exchangePause)
		one.wantSettled(ours, "through 2")
	})
}

// TestSharedDeviceExchange goes through what relays agree on.
func TestSharedDeviceExchange(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	a, b := MailboxKey{org, "a"}, MailboxKey{other, "b"}
	live := []LivePart{{Key: a}, {Key: b}}
	terms := func(relay string, change func(*ExchangeTerms)) ExchangeTerms {
		t := ExchangeTerms{Relay: relay, Now: now, Lifetime: time.Minute, ShownFor: time.Hour, Live: live}
		if change != nil {
			change(&t)
		}
		return t
	}
	received := func(key MailboxKey, n uint32, at time.Duration) SharedUpdate {
		return SharedUpdate{Counts: []ReceivedCount{{key, n, now.Add(at)}}}
	}
	var d SharedDevice
	do := func(why string, u SharedUpdate, t2 ExchangeTerms, sum uint32, outstanding bool, pusher string) {
		t.Helper()
		d.Merge(&u, t2)
		if d.Sum() != sum || d.Outstanding() != outstanding || d.Pusher != pusher {
			t.Errorf("%s: sum %d, outstanding %v, pusher %q; want %d, %v, %q", why, d.Sum(), d.Outstanding(), d.Pusher, sum, outstanding, pusher)
		}
	}
	accepted := func() SharedUpdate { return SharedUpdate{Accepted: d.Sequence} }
	do("the first one pushes", received(a, 3, -10*time.Second), terms("one", nil), 3, true, "one")
	do("another's answer counts nothing", accepted(), terms("two", nil), 3, true, "one")
	do("accepted", accepted(), terms("one", nil), 3, false, "one")
	do("an older count", received(a, 9, -11*time.Second), terms("two", nil), 3, false, "one")
	do("the same count", received(a, 3, -9*time.Second), terms("two", nil), 3, false, "one")
	do("an older count than the same", received(a, 9, -9500*time.Millisecond), terms("two", nil), 3, false, "one")
	do("the other part", received(b, 4, -8*time.Second), terms("two", nil), 7, true, "one")
	do("a refusal", SharedUpdate{Refused: &SharedRefusal{Sequence: d.Sequence}}, terms("one", nil), 7, false, "one")
	do("the same count after a refusal", received(b, 4, -7*time.Second), terms("two", nil), 7, true, "one")
	do("accepted", accepted(), terms("one", nil), 7, false, "one")
	do("the same count long after", received(b, 4, 2*time.Hour), terms("two", func(t *ExchangeTerms) { t.Now = now.Add(2 * time.Hour) }), 7, true, "one")
	do("one has left", SharedUpdate{}, terms("two", func(t *ExchangeTerms) { t.PusherFree = true }), 7, true, "two")
	do("accepted", accepted(), terms("two", nil), 7, false, "two")
	do("two is silent", SharedUpdate{}, terms("one", func(t *ExchangeTerms) { t.PusherFree, t.PusherSilent = true, true }), 7, true, "one")
	do("it can't push", SharedUpdate{Yield: true}, terms("one", nil), 7, true, "")
	do("nor can the other", SharedUpdate{Yield: true}, terms("two", nil), 7, true, "")
	do("it can again", SharedUpdate{}, terms("one", nil), 7, true, "one")
	do("accepted, and left to another", SharedUpdate{Accepted: d.Sequence, Yield: true}, terms("one", nil), 7, false, "")
	do("alone it leaves it to nobody", SharedUpdate{Yield: true}, terms("one", func(t *ExchangeTerms) { t.Lifetime = 0 }), 7, false, "one")
	do("disabled", SharedUpdate{}, terms("one", func(t *ExchangeTerms) { t.Live = []LivePart{{Key: a}, {Key: b, Disabled: true}} }), 3, true, "one")
	do("gone", accepted(), terms("one", func(t *ExchangeTerms) { t.Live = live[:1] }), 3, true, "one")
	do("accepted, and on one mailbox", accepted(), terms("one", func(t *ExchangeTerms) { t.Live = live[:1] }), 3, false, "one")
	if !d.Shared {
		t.Error("other relays may not have heard of it yet")
	}
	d.Merge(&SharedUpdate{}, terms("one", func(t *ExchangeTerms) { t.Live, t.Now = live[:1], now.Add(time.Hour) }))
	if d.Shared {
		t.Error("a device on one mailbox is shared for good")
	}
}

// TestDeadSharedDevice ends each organization's subscription with its own event.
func TestDeadSharedDevice(t *testing.T) {
	gone := func() *apns.Error {
		return &apns.Error{Status: 410, Reason: apns.ReasonUnregistered, Timestamp: time.Now()}
	}
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.after(time.Hour)
		h.submit(ours, count("a", 1))
		h.accept("", "1=1")
		h.submit(theirs, count("a", 2))
		h.answer(gone(), h.wantPushes("", "1=3")...)
		h.wantSettled(theirs, "through 1, 1 undeliverable")
		if n := h.registry.subscribers(org); n != 1 {
			h.t.Fatalf("%d subscriptions of ours are left, want 1", n)
		}
		if n := h.registry.subscribers(other); n != 0 {
			h.t.Fatalf("%d subscriptions of theirs are left, want none", n)
		}
		h.after(exchangePause)
		h.answer(gone(), h.wantPushes("theirs is gone", "1=1")...)
		h.after(time.Minute)
		h.wantPushes("nobody's event waits: it is left at that")
		if n := h.registry.subscribers(org); n != 1 {
			h.t.Fatal("ours ended without an event of ours")
		}
		h.wantSettled(ours, "through 1")
		h.submit(ours, count("a", 1))
		h.answer(gone(), h.wantPushes("our own next event", "1=1")...)
		h.wantSettled(ours, "through 2, 2 undeliverable")
		if n := h.registry.subscribers(org); n != 0 {
			h.t.Fatal("ours is still there")
		}
	})
}

// TestSumOfADeviceThatWasCalledGone: APNs refuses one organization's push by
// mistake and accepts another's. The first one's counts are a part again.
func TestSumOfADeviceThatWasCalledGone(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(theirs, count("a", 4))
		h.accept("", "1=4")
		h.submit(ours, count("a", 3))
		h.answer(&apns.Error{Status: 410, Reason: apns.ReasonUnregistered, Timestamp: time.Now().Add(-time.Hour)}, h.wantPushes("", "1=7")...)
		h.wantSettled(ours, "through 1, 1 undeliverable")
		h.submit(ours, count("a", 5))
		h.wantSettled(ours, "through 2, 2 undeliverable")
		h.wantPushes("it is quarantined")
		h.submit(theirs, count("a", 6))
		h.accept("", "1=11")
		h.submit(ours, count("a", 1))
		h.accept("", "1=7")
		h.wantSettled(ours, "through 3")
	})
}

// TestSumKeepsTheWindow: a storm on both mailboxes is one push a window.
func TestSumKeepsTheWindow(t *testing.T) {
	shared(t, func(c *Config) { c.Window = time.Second }, func(h *harness, ours, theirs *Stream) {
		h.submit(ours, count("a", 1))
		h.accept("the first goes at once", "1=1")
		h.after(400 * time.Millisecond)
		h.submit(theirs, count("a", 10))
		h.wantPushes("the window is the device's")
		h.after(599 * time.Millisecond)
		h.wantPushes("it is still open")
		h.after(2 * time.Millisecond)
		h.accept("", "1=11")
	})
}

// TestSumOfACountThatAWindowHeld: what a window holds goes to the registry with what
// another mailbox has to say, and its event waits for the device only when the window
// ends, while the answer is on its way.
func TestSumOfACountThatAWindowHeld(t *testing.T) {
	for _, next := range []uint32{3, 5} {
		shared(t, func(c *Config) { c.Window = time.Second }, func(h *harness, ours, theirs *Stream) {
			h.submit(ours, count("a", 3))
			h.accept("", "1=3")
			h.wantSettled(ours, "through 1")
			h.submit(ours, count("a", next)) // held
			h.registry.asked = func(x *ExchangeRequest, _ *ExchangeResult) {
				if len(x.Devices) > 0 && len(x.Devices[0].Counts) == 2 {
					h.registry.asked = nil
					time.Sleep(3 * time.Second)
				}
			}
			h.submit(theirs, count("a", 4))
			h.after(10 * time.Second)
			h.accept("", fmt.Sprint("1=", next+4))
			h.after(exchangePause)
			want := "through 2"
			if next == 3 { // it was accepted before
				want = "through 2, 2 unchanged"
			}
			h.wantSettled(ours, want)
			h.wantSettled(theirs, "through 1")
		})
	}
}

// TestSumsPriorities: what rises or falls is the sum.
func TestSumsPriorities(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		for _, step := range []struct {
			stream *Stream
			count  uint32
			want   apns.Priority
		}{{ours, 5, apns.PriorityImmediate}, {theirs, 5, apns.PriorityImmediate}, {ours, 4, apns.PriorityPower}, {theirs, 6, apns.PriorityImmediate}} {
			h.submit(step.stream, count("a", step.count))
			synctest.Wait()
			pushes := h.pool.taken()
			if len(pushes) != 1 || pushes[0].Priority != step.want {
				h.t.Fatalf("count %d: pushes %+v, want one of priority %d", step.count, pushes, step.want)
			}
			h.answer(nil, pushes...)
		}
	})
}

// TestRandomSums plays random events, answers, subscriptions and ends of streams
// on devices of several mailboxes. Once APNs accepts again every device shows
// the sum of its mailboxes.
func TestRandomSums(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			bubble(t, func(c *Config) { c.Window = 100 * time.Millisecond }, func(h *harness) {
				w := &sumWorld{h: h, rng: rand.New(rand.NewPCG(seed, 2)), newest: map[MailboxKey]uint32{}, on: map[apns.DeviceToken]map[MailboxKey]bool{},
					shown: map[apns.DeviceToken]uint32{}, streams: map[OrganizationID]*Stream{}}
				for o := OrganizationID(1); o <= 3; o++ {
					w.streams[o] = h.relay.OpenStream(o, "mx")
				}
				for range 250 {
					w.step()
				}
				w.settle()
			})
		})
	}
}

type sumWorld struct {
	h        *harness
	rng      *rand.Rand
	streams  map[OrganizationID]*Stream
	newest   map[MailboxKey]uint32
	on       map[apns.DeviceToken]map[MailboxKey]bool
	shown    map[apns.DeviceToken]uint32
	inFlight []apns.Request
}

func (w *sumWorld) mailbox() MailboxKey {
	return MailboxKey{OrganizationID(1 + w.rng.IntN(3)), fmt.Sprint("m", w.rng.IntN(2))}
}

func (w *sumWorld) send(key MailboxKey) {
	w.newest[key] = uint32(w.rng.IntN(5))
	w.h.submit(w.streams[key.Organization], count(key.Mailbox, w.newest[key]))
}

func (w *sumWorld) step() {
	d := phone(w.rng.IntN(4))
	switch n := w.rng.IntN(20); {
	case n < 8:
		w.send(w.mailbox())
	case n < 13:
		w.answerOne()
	case n < 15:
		key := w.mailbox()
		if w.on[d] == nil {
			w.on[d] = map[MailboxKey]bool{}
		}
		w.on[d][key] = true
		w.h.registry.subscribeToo(key.Organization, key.Mailbox, d)
		w.send(key)
	case n < 16:
		for key := range w.on[d] {
			delete(w.on[d], key)
			w.h.registry.unsubscribe(key.Organization, key.Mailbox, d)
			break
		}
	case n < 17:
		o := OrganizationID(1 + w.rng.IntN(3))
		w.streams[o].Close()
		w.streams[o] = w.h.relay.OpenStream(o, "mx")
		w.sendAgain(o)
	case n < 18:
		w.h.registry.setFails(true)
		w.h.after(time.Duration(w.rng.IntN(3000)) * time.Millisecond)
		w.h.registry.setFails(false)
	case n < 19:
		w.h.after(time.Duration(w.rng.IntN(1500)) * time.Millisecond)
	default:
		w.h.after(2*compactAfter + time.Duration(w.rng.IntN(10))*time.Second)
	}
	w.inFlight = append(w.inFlight, w.h.pool.taken()...)
}

func (w *sumWorld) sendAgain(o OrganizationID) {
	for key, n := range w.newest {
		if key.Organization == o {
			w.h.submit(w.streams[o], count(key.Mailbox, n))
		}
	}
}

func (w *sumWorld) answerOne() {
	if len(w.inFlight) == 0 {
		return
	}
	i := w.rng.IntN(len(w.inFlight))
	req := w.inFlight[i]
	w.inFlight = append(w.inFlight[:i], w.inFlight[i+1:]...)
	var err *apns.Error
	switch w.rng.IntN(6) {
	case 0:
		err = unavailable()
	case 1:
		err = &apns.Error{Status: 429, Reason: apns.ReasonTooManyRequests}
	}
	if err == nil {
		w.shown[req.Device] = req.Badge
	}
	w.h.answer(err, req)
}

func (w *sumWorld) settle() {
	for range 60 {
		w.inFlight = append(w.inFlight, w.h.pool.taken()...)
		for _, req := range w.inFlight {
			w.shown[req.Device] = req.Badge
		}
		w.h.answer(nil, w.inFlight...)
		w.inFlight = nil
		w.h.after(time.Minute)
	}
	for d, on := range w.on {
		want := uint32(0)
		for key := range on {
			want += w.newest[key]
		}
		if len(on) > 0 && w.shown[d] != want {
			w.h.t.Errorf("device %v on %v shows %d, want %d", d, on, w.shown[d], want)
		}
	}
	if pending := w.h.relay.Ledger().Pending; pending != 0 {
		w.h.t.Errorf("%d events are pending", pending)
	}
	for _, s := range w.streams {
		s.Close()
	}
}

// TestSumAfterARestartBeforeSharedDevicesAreRead has a count arrive before the relay
// knows by the registry which devices are shared, and so what time it is there.
func TestSumAfterARestartBeforeSharedDevicesAreRead(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(ours, count("a", 3))
		h.accept("", "1=3")
		h.submit(theirs, count("a", 4))
		h.accept("", "1=7")
		h.stop()
		h.registry.sharedUnreadable = true
		next := newHarnessOn(h.t, h.registry, func(c *Config) { c.Window = -1 })
		defer next.stop()
		synctest.Wait()
		s := next.relay.OpenStream(org, "mx")
		next.submit(s, count("a", 5))
		next.accept("the newest count, not the stored one", "1=9")
		next.wantSettled(s, "through 1")
		s.Close()
	})
}

// TestStrangerDoesNotHoldAFallBack has another organization put the device on
// mailboxes that it never counts, while ours leaves one of its own.
func TestStrangerDoesNotHoldAFallBack(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.registry.subscribeToo(org, "b", phone(1))
		h.submit(ours, count("a", 3)) // one after the other: one exchange may tell of the first alone
		h.after(2 * exchangePause)
		h.submit(ours, count("b", 10))
		h.accept("", "1=13")
		h.submit(theirs, count("a", 1))
		h.accept("", "1=14")
		h.registry.subscribeToo(other, "y", phone(1))
		h.submit(theirs, count("a", 2))
		h.wantPushes("theirs waits for their own y")
		h.registry.unsubscribe(org, "b", phone(1))
		h.after(5 * time.Second)
		h.accept("ours fell by 10 and waits for nobody", "1=4")
		h.after(2 * time.Minute)
		h.pool.taken()
	})
}

// TestSumOfADeviceThatAnotherOrganizationAdds has nobody tell of it but the change of
// that organization's mailbox, whose count the relay remembers.
func TestSumOfADeviceThatAnotherOrganizationAdds(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribe(other, "x", phone(2))
		h.after(time.Millisecond)
		ours, theirs := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
		h.submit(ours, count("a", 3))
		h.submit(theirs, count("x", 5))
		h.accept("", "1=3", "2=5")
		h.registry.add(other, "x", phone(1))
		h.after(3 * time.Second)
		h.accept("the relay remembers both counts", "1=8")
		ours.Close()
		theirs.Close()
	})
}
