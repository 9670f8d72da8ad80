package relay

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestFailoverThatLostExchanges has the registry be what it was some exchanges ago, as after
// a failover to a standby that lacked them.
func TestFailoverThatLostExchanges(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(ours, count("a", 3))
		h.accept("", "1=3")
		h.submit(theirs, count("a", 4))
		h.accept("", "1=7")
		h.after(2 * exchangePause)
		h.wantSettled(theirs, "through 1")
		back := h.registry.keepShared(phone(1))
		for i := range 3 {
			h.submit(theirs, count("a", uint32(5+i)))
			h.accept("", fmt.Sprint("1=", 8+i))
			h.wantSettled(theirs, fmt.Sprint("through ", 2+i))
		}
		back()
		h.submit(ours, count("a", 13))
		shown := uint32(0)
		for range 5 {
			pushes := h.pool.taken()
			for _, p := range pushes {
				shown = p.Badge
			}
			h.answer(nil, pushes...)
			h.after(exchangePause)
		}
		if shown != 20 {
			t.Errorf("the device shows %d, want 13 of ours and the 7 that the registry had lost", shown)
		}
		h.wantSettled(ours, "through 2")
		h.submit(theirs, count("a", 20))
		h.accept("a sum that APNs has not accepted", "1=33")
		h.wantSettled(theirs, "through 5")
	})
}

// TestCountThatCameAfterAFailover has a relay bring a count before the one that pushes, which
// knows later sequences than the registry, has found out.
func TestCountThatCameAfterAFailover(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	a, b := MailboxKey{org, "a"}, MailboxKey{other, "b"}
	var d SharedDevice
	merge := func(relay string, u SharedUpdate) {
		now = now.Add(time.Second)
		d.Parts = slices.Clone(d.Parts)
		d.Merge(&u, ExchangeTerms{Relay: relay, Now: now, Lifetime: time.Minute, ShownFor: time.Hour, Live: []LivePart{{Key: a}, {Key: b}}})
	}
	bring := func(relay string, key MailboxKey, n uint32) {
		merge(relay, SharedUpdate{Sequence: d.Sequence, Counts: []ReceivedCount{{key, n, now}}})
	}
	bring("pushes", a, 3)
	merge("pushes", SharedUpdate{Sequence: d.Sequence, Accepted: d.Sequence})
	kept := d
	for n := range uint32(5) {
		bring("pushes", a, 4+n)
	}
	known := SharedUpdate{Sequence: d.Sequence, Accepted: d.Sequence - 1}
	d = kept
	bring("other", b, 7)
	merge("pushes", known)
	for range 2 { // with the answer that it has known before, too
		if p := d.part(b); d.Delivered(p) || !d.Outstanding() || d.Sequence <= known.Sequence {
			t.Errorf("the other relay's count is delivered: %v, and the sum outstanding: %v, with sequence %d; the relay that pushes knows %d",
				d.Delivered(p), d.Outstanding(), d.Sequence, known.Sequence)
		}
		merge("pushes", SharedUpdate{Sequence: d.Sequence, Accepted: known.Accepted})
	}
}

// TestNewestCountIsRememberedLongAfter has two relays remember counts of a mailbox from long
// ago, one after the other, whose device becomes shared: the newer one is in the sum,
// whichever relay is told last.
func TestNewestCountIsRememberedLongAfter(t *testing.T) {
	for _, first := range []string{"one", "two"} {
		synctest.Test(t, func(t *testing.T) {
			registry := newMemoryRegistry()
			registry.subscribe(org, "a", phone(1))
			registry.subscribeToo(org, "a", phone(2))
			one, two := newSharing(t, registry, "one"), newSharing(t, registry, "two")
			defer one.stop()
			defer two.stop()
			synctest.Wait()
			for i, h := range []*harness{one, two} {
				s := h.relay.OpenStream(org, "mx")
				h.submit(s, count("a", uint32(3+i)))
				h.answer(nil, h.pool.taken()...)
				s.Close()
				h.after(3 * compactAfter)
			}
			one.after(2 * orderMemory)
			registry.unsubscribe(org, "a", phone(2)) // both relays read the mailbox anew
			one.after(3 * compactAfter)
			h := map[string]*harness{"one": one, "two": two}[first]
			theirs := h.relay.OpenStream(other, "mx")
			defer theirs.Close()
			registry.subscribeToo(other, "x", phone(1))
			h.submit(theirs, count("x", 10))
			shown := uint32(0)
			for range 6 {
				one.after(30 * time.Second)
				for _, h := range []*harness{one, two} {
					for _, p := range h.pool.taken() {
						shown = p.Badge
						h.answer(nil, p)
					}
				}
			}
			if shown != 14 {
				t.Errorf("%s comes first: the device shows %d, want 14, of 10 and the newer count 4", first, shown)
			}
		})
	}
}
