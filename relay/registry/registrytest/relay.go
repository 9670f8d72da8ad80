package registrytest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

func testLookup(h *harness) {
	ctx, a, b := h.Context(), h.org("a.com"), h.org("b.com")
	_, err := h.ImportSubscriptions(ctx, a, bulk(1200))
	h.ok(err)
	h.subscribe(b, reg("user0000001", 2))
	for _, n := range []int{0, 1, 2, 15, 16, 17, 255, 256, 257, 600} {
		var keys []relay.MailboxKey
		for i := range n {
			keys = append(keys, key(a, fmt.Sprintf("user%07d", n-1-i)))
		}
		found, err := h.Lookup(ctx, keys)
		h.ok(err)
		if len(found) != n {
			h.Fatalf("%d keys: got %d answers", n, len(found))
		}
		for i, subs := range found {
			first := 2 * (n - 1 - i)
			if len(subs) != 2 || subs[0].App != testApp || subs[0].RegisteredAt.IsZero() ||
				!(subs[0].Device == token(first) && subs[1].Device == token(first+1) || subs[1].Device == token(first) && subs[0].Device == token(first+1)) {
				h.Fatalf("%d keys: %v has %v", n, keys[i], subs)
			}
		}
	}
	mixed := []relay.MailboxKey{key(b, "user0000001"), key(a, "nobody"), key(b, "user0000002"), key(b, "user0000001"), key(99, "user0000001"), {}}
	found, err := h.Lookup(ctx, mixed)
	h.ok(err)
	for i, want := range []int{1, 0, 0, 1, 0, 0} {
		if len(found[i]) != want {
			h.Errorf("%v: got %d subscriptions, want %d", mixed[i], len(found[i]), want)
		}
	}
}

func testRemove(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	at := h.subscribe(org, reg("a", 1)).Subscription.RegisteredAt
	h.subscribe(org, reg("a", 2))
	h.subscribe(org, reg("b", 3))
	h.forget()
	removal := func(mailbox string, n int, timestamp time.Time) relay.Removal {
		return relay.Removal{Key: key(org, mailbox), App: testApp, Device: token(n), Reason: "Unregistered", Timestamp: timestamp}
	}
	for name, c := range map[string]struct {
		r    relay.Removal
		want bool
	}{
		"registered after":    {removal("a", 1, at.Add(-time.Millisecond)), false},
		"registered at":       {removal("a", 1, at), false},
		"another mailbox":     {removal("b", 1, time.Time{}), false},
		"another device":      {removal("a", 9, time.Time{}), false},
		"another app":         {relay.Removal{Key: key(org, "a"), App: "other", Device: token(1)}, false},
		"no organization":     {relay.Removal{Key: key(0, "a"), App: testApp, Device: token(1)}, false},
		"no device":           {relay.Removal{Key: key(org, "a"), App: testApp}, false},
		"another in capitals": {removal("A", 1, time.Time{}), false},
	} {
		got, err := h.Remove(ctx, []relay.Removal{c.r})
		h.ok(err)
		if got[0] != c.want {
			h.Errorf("%s: removed %t, want %t", name, got[0], c.want)
		}
	}
	h.told()
	h.check(2, 3)
	got, err := h.Remove(ctx, []relay.Removal{
		removal("a", 1, at.Add(time.Millisecond)), removal("a", 1, time.Time{}), removal("a", 2, time.Time{}), removal("b", 3, at.Add(-time.Hour)),
	})
	h.ok(err)
	if !slices.Equal(got, []bool{true, false, true, false}) {
		h.Errorf("removed %v, want the first, not again, the third, not the renewed one", got)
	}
	h.told("unsubscribed a live", "unsubscribed a")
	h.check(1, 1)
	if got, err := h.Remove(ctx, nil); err != nil || len(got) != 0 {
		h.Errorf("got %v, %v for no removals", got, err)
	}
}

func testRemovedList(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	before := time.Now().Truncate(time.Millisecond)
	var removals []relay.Removal
	for i := range 5 {
		h.subscribe(org, reg("a", i))
		removals = append(removals, relay.Removal{Key: key(org, "a"), App: testApp, Device: token(i), Reason: "BadDeviceToken"})
	}
	_, err := h.Remove(ctx, removals)
	h.ok(err)
	list := func(size int) (all []registry.Subscription) {
		for page := (registry.Page{Size: size}); ; {
			got, next, err := h.ListSubscriptions(ctx, registry.SubscriptionFilter{Organization: org, Removed: true}, page)
			h.ok(err)
			all = append(all, got...)
			if page.Token = next; next == "" {
				return all
			}
		}
	}
	for _, size := range []int{1, 2, 5, 6} {
		got := list(size)
		if len(got) != 5 || got[0].RemovalReason != "BadDeviceToken" || got[0].RemovedAt.Before(before) || got[0].RegisteredAt.Before(before) || got[0].Mailbox != "a" {
			h.Fatalf("pages of %d: got %+v, want five with their reason", size, got)
		}
	}
	h.check(0, 0)
	h.subscribe(org, reg("b", 1)) // elsewhere: that it was removed from a is still true
	if got := list(0); len(got) != 5 {
		h.Errorf("got %d removed, want 5", len(got))
	}
	if again := h.subscribe(org, reg("a", 1)); !again.Created {
		h.Errorf("got %+v, want a new subscription", again)
	}
	if got := list(0); len(got) != 4 || slices.ContainsFunc(got, func(s registry.Subscription) bool { return s.Device == token(1) }) {
		h.Errorf("got %+v, want the four that did not come back", got)
	}
	removals[1].Reason = "Unregistered"
	_, err = h.Remove(ctx, removals[1:2])
	h.ok(err)
	reasons := make(map[string]int)
	for _, s := range list(0) {
		reasons[string(s.RemovalReason)]++
	}
	if reasons["BadDeviceToken"] != 4 || reasons["Unregistered"] != 1 {
		h.Errorf("got reasons %v, want the last of each", reasons)
	}
}

func testScan(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	h.ok(h.Scan(ctx, func([]registry.Entry) error { return errors.New("called for nothing") }))
	_, err := h.ImportSubscriptions(ctx, org, bulk(3000))
	h.ok(err)
	h.check(1500, 3000)
	calls, stop := 0, errors.New("stop")
	err = h.Scan(ctx, func([]registry.Entry) error { calls++; return stop })
	if h.want(err, stop); calls != 1 {
		h.Errorf("called %d times after an error", calls)
	}
	n := 0
	h.ok(h.Scan(ctx, func(batch []registry.Entry) error {
		if n += len(batch); n == len(batch) { // in the midst of a scan a writer goes on, and the scan sees one state
			h.subscribe(org, reg("zzz", 5000))
		}
		return nil
	}))
	if n != 3000 {
		h.Errorf("scanned %d, want the 3000 that were there at the beginning", n)
	}
	h.check(1501, 3001)
}
