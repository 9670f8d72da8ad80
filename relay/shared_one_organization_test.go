package relay

import (
	"testing"
	"time"
)

// TestNoSumAcrossOrganizations has a device of an app that shows no sum across
// organizations: the first one's counts are shown, their sum included, until it has
// none left.
func TestNoSumAcrossOrganizations(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.relay.SetSumAcrossOrganizations(app, false)
		h.registry.subscribe(org, "a", phone(1))
		h.after(time.Second)
		h.registry.subscribeToo(other, "a", phone(1))
		h.registry.subscribeToo(other, "a", phone(2))
		h.registry.subscribeToo(other, "b", phone(1))
		h.after(time.Second)
		ours, theirs := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
		h.submit(theirs, count("a", 4), count("b", 5))
		h.accept("the device is ours", "2=4")
		h.wantSettled(theirs, "through 2, 2 no_subscription")
		h.submit(ours, count("a", 3))
		h.accept("", "1=3")
		h.wantSettled(ours, "through 1")
		h.submit(theirs, count("b", 6))
		h.wantPushes("not one push because of a stranger")
		h.wantSettled(theirs, "through 3, 3 no_subscription")

		h.registry.subscribeToo(org, "c", phone(1)) // it moves, which takes nothing from it
		h.registry.unsubscribe(org, "a", phone(1))
		h.after(2 * partTimeout)
		h.answer(nil, h.pool.taken()...)
		h.submit(ours, count("c", 7))
		h.accept("it is still ours", "1=7")

		h.registry.unsubscribe(org, "c", phone(1))
		h.after(2 * exchangePause)
		h.accept("what they said last, as a sum", "1=10")
		h.submit(theirs, count("b", 1))
		h.accept("it is theirs now", "1=5")
		h.wantSettled(theirs, "through 4")
		ours.Close()
		theirs.Close()
	})
}

// TestSumAcrossOrganizationsChanges turns the sum across organizations on and off while
// the relay runs: the badge follows, without a count.
func TestSumAcrossOrganizationsChanges(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(ours, count("a", 3))
		h.submit(theirs, count("a", 4))
		h.accept("", "1=3")
		h.after(time.Second)
		h.accept("", "1=7")
		h.after(time.Second)
		h.relay.SetSumAcrossOrganizations(app, false)
		h.accept("theirs is not in it any more", "1=3")
		h.after(time.Second)
		h.relay.SetSumAcrossOrganizations(app, true)
		h.accept("it is again", "1=7")
		h.relay.SetSumAcrossOrganizations(app, true)
		h.after(time.Minute)
		h.wantPushes("nothing has changed")
	})
}

// TestAcceptedBeforeItBecameAnothers has a relay hear in one exchange that APNs accepted a
// count, which another relay pushed, and that the device is another organization's since.
func TestAcceptedBeforeItBecameAnothers(t *testing.T) {
	for accepted, want := range map[uint64]targetEnd{7: endDelivered, 6: endOtherOrganization} {
		m := &mailbox{key: MailboxKey{org, "a"}}
		s := &sharedState{acceptedSequence: accepted, stored: []storedCount{{target: &target{mailbox: m}, count: 3, sequence: 7, open: true}}}
		var acts actions
		s.followParts(&SharedDevice{Parts: []Part{{Key: m.key, Disabled: true, OtherOrganization: true, State: PartCurrent, Count: 3, NewestCount: 3, Sequence: 7}}}, 1, &acts)
		if len(acts.results) != 1 || acts.results[0].end != want || len(s.stored) != 0 {
			t.Errorf("accepted through %d: %+v, %d stored; want end %v", accepted, acts.results, len(s.stored), want)
		}
	}
}
