package relay

import (
	"context"
	"slices"
	"testing"
	"time"

	"badgerelay/apns"
)

// TestSumOfADisabledOrganization has an event come that the relay takes because it has
// not heard that the organization is disabled. Its device is there all the same: the
// event waits until the organization is enabled, or its stream is ended.
func TestSumOfADisabledOrganization(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(theirs, count("a", 3))
		h.accept("", "1=3")
		h.wantSettled(theirs, "through 1")
		h.registry.disable(org, true)
		h.submit(ours, count("a", 4))
		h.after(5 * time.Second)
		h.answer(nil, h.pool.taken()...)
		h.wantSettled(ours, "nothing")
		h.registry.disable(org, false)
		h.after(2 * exchangePause)
		h.accept("it counts now", "1=7")
		h.wantSettled(ours, "through 1")

		h.registry.disable(org, true)
		h.submit(ours, count("a", 5))
		h.after(5 * time.Second)
		h.accept("what they said before counts nothing", "1=3")
		ours.Close()
		h.wantSettled(ours, "through 2, 2 abandoned")
		h.registry.disable(org, false)
		h.after(2 * exchangePause)
		h.accept("it was stored", "1=8")
	})
}

// TestDisabledOrganizationsDevicesKeepTheirBadges disables an organization, and removes it:
// its devices go on to show what they did, on one of its mailboxes or on several. Where
// another organization is on one as well, the sum falls by the part.
func TestDisabledOrganizationsDevicesKeepTheirBadges(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribe(org, "a", phone(2))
		h.registry.subscribeToo(org, "b", phone(2))
		h.registry.subscribe(org, "a", phone(3))
		h.registry.subscribeToo(other, "a", phone(3))
		h.after(time.Second)
		ours, theirs := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
		h.submit(ours, count("a", 3), count("b", 4))
		h.submit(theirs, count("a", 5))
		h.acceptAll()
		h.submit(ours, count("a", 2))
		h.answer(nil, h.pool.taken()...) // 2, 6 and 7
		h.after(time.Second)
		h.registry.disable(org, true)
		h.after(5 * time.Second)
		h.accept("theirs is left", "3=5")
		h.after(time.Minute)
		h.wantPushes("nobody's is")
		h.registry.disable(org, false)
		h.after(5 * time.Second)
		if got := h.pool.taken(); !slices.Equal(badges(got), []uint32{6, 7}) {
			t.Errorf("enabled again, the devices are pushed %v, want the sums 6 and 7", badges(got))
		} else {
			h.answer(nil, got...)
		}

		h.registry.disable(org, true)
		h.after(5 * time.Second)
		h.accept("theirs is left", "3=5")
		for _, mailbox := range []string{"a", "b"} {
			for n := 1; n <= 3; n++ {
				h.registry.unsubscribe(org, mailbox, phone(n))
			}
		}
		h.relay.OrganizationGone(org)
		h.after(time.Minute)
		for _, badge := range badges(h.pool.taken()) {
			if badge != 5 {
				t.Errorf("removed, and pushed %d", badge)
			}
		}
		ours.Close()
		theirs.Close()
	})
}

// badges returns what is pushed, the least first.
func badges(pushes []apns.Request) (all []uint32) {
	for _, p := range pushes {
		all = append(all, p.Badge)
	}
	slices.Sort(all)
	return all
}

// TestSumWithoutADisabledOrganizationDeliversNothingOfIt loses the push of a count, and
// then has a sum accepted that lacks it because its organization is disabled.
func TestSumWithoutADisabledOrganizationDeliversNothingOfIt(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(theirs, count("a", 3))
		h.accept("", "1=3")
		h.submit(ours, count("a", 4))
		push := h.wantPushes("", "1=7")
		h.registry.disable(org, true)
		h.after(2 * exchangePause)
		h.answer(lost(), push...)
		h.accept("ours does not count", "1=3")
		h.after(10 * time.Second)
		h.wantSettled(ours, "nothing")
		h.registry.disable(org, false)
		h.after(2 * exchangePause)
		h.accept("it counts now", "1=7")
		h.wantSettled(ours, "through 1")
	})
}

// TestDisabledOrganizationEndsWhatNobodyWaitsFor disables an organization whose call has gone:
// no stream ends its events, and no sum holds their counts.
func TestDisabledOrganizationEndsWhatNobodyWaitsFor(t *testing.T) {
	bubble(t, func(c *Config) { alone(c); c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribeToo(org, "b", phone(1))
		h.after(time.Second)
		h.pool.setRoom(0)
		ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
		defer cancel()
		go func() { // while the caller waits, its call is what ends them
			time.Sleep(time.Second)
			h.registry.disable(org, true)
			h.relay.SumsChanged()
		}()
		outcomes, err := h.relay.Publish(ctx, org, "mx", []Event{count("a", 5), count("b", 6)})
		if err != nil || outcomes[0].Outcome != OutcomePending || outcomes[1].Outcome != OutcomePending {
			t.Errorf("got %v, %v", outcomes, err)
		}
		h.after(2 * exchangePause)
		if l := h.relay.Ledger(); l.Pending != 0 || l.Outcomes[OutcomeAbandoned] != 2 {
			t.Errorf("%d are pending and %d abandoned, want both abandoned", l.Pending, l.Outcomes[OutcomeAbandoned])
		}
		exchanged := 0
		h.registry.whenAsked(func(x *ExchangeRequest, _ *ExchangeResult) { exchanged += len(x.Devices) })
		h.after(time.Minute)
		h.registry.whenAsked(nil)
		if exchanged > 1 {
			t.Errorf("%d exchanges in a minute of a device that nobody waits for", exchanged)
		}
	})
}

// TestSumOfAnotherRelayWithoutADisabledOrganization does so while the relay that has
// the event does not reach the registry.
func TestSumOfAnotherRelayWithoutADisabledOrganization(t *testing.T) {
	twoRelays(t, 1, func(one, two *harness, _, theirs *Stream) {
		two.submit(theirs, count("a", 4))
		one.after(2 * exchangePause)
		push := one.wantPushes("", "1=7")
		one.registry.setApartFrom("two")
		one.registry.disable(other, true)
		one.after(2 * exchangePause)
		one.answer(lost(), push...)
		one.accept("theirs does not count", "1=3")
		one.after(2 * exchangePause)
		one.registry.disable(other, false)
		one.after(2 * exchangePause)
		push = one.wantPushes("it counts again", "1=7")
		one.registry.setApartFrom("")
		two.after(time.Minute)
		two.wantSettled(theirs, "nothing")
		one.answer(nil, push...)
		two.after(2 * exchangePause)
		two.wantSettled(theirs, "through 1")
	})
}

// TestSumWithoutAMailboxThatTheDeviceHasLeftDeliversNothingOfIt has a relay push the sum
// that is left before it hears that the device has left a mailbox.
func TestSumWithoutAMailboxThatTheDeviceHasLeftDeliversNothingOfIt(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(theirs, count("a", 3))
		h.accept("", "1=3")
		h.submit(ours, count("a", 4))
		push := h.wantPushes("", "1=7")
		h.registry.unsubscribeUnheard(MailboxKey{org, "a"}, phone(1))
		h.submit(theirs, count("a", 5))
		h.after(2 * exchangePause)
		h.answer(lost(), push...)
		h.accept("ours does not count", "1=5")
		h.wantSettled(theirs, "through 2")
		h.wantSettled(ours, "through 1, 1 no_subscription")
	})
}
