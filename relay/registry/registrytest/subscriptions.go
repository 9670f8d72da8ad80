package registrytest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

func testSubscribe(h *harness) {
	ctx, org, before := h.Context(), h.org("fabrikam.com"), time.Now().Truncate(time.Millisecond)
	first := h.subscribe(org, reg("anna", 1))
	h.told("subscribed anna live")
	s := first.Subscription
	if !first.Created || len(first.LeftMailboxes) > 0 || s.Organization != org || s.Mailbox != "anna" || s.App != testApp || s.Device != token(1) ||
		s.CreatedAt.Before(before) || s.RegisteredAt != s.CreatedAt || !s.ExpiresAt.IsZero() || !s.RemovedAt.IsZero() {
		h.Errorf("got %+v, want a new subscription", first)
	}
	again := h.subscribe(org, reg("anna", 1))
	h.told("subscribed anna live")
	if again.Created || len(again.LeftMailboxes) > 0 || again.Subscription.CreatedAt != s.CreatedAt || again.Subscription.RegisteredAt.Before(s.RegisteredAt) {
		h.Errorf("got %+v, want a renewed one", again)
	}
	h.subscribe(org, reg("anna", 2))
	h.told("subscribed anna live")
	h.check(1, 2)
	h.ok(h.Unsubscribe(ctx, org, reg("anna", 1)))
	h.told("unsubscribed anna live")
	h.want(h.Unsubscribe(ctx, org, reg("anna", 1)), registry.ErrSubscriptionNotFound)
	h.want(h.Unsubscribe(ctx, org, reg("Anna", 2)), registry.ErrSubscriptionNotFound)
	h.ok(h.Unsubscribe(ctx, org, reg("anna", 2)))
	h.told("unsubscribed anna")
	h.check(0, 0)
	for _, removed := range []bool{false, true} {
		got, next, err := h.ListSubscriptions(ctx, registry.SubscriptionFilter{Organization: org, Removed: removed}, registry.Page{})
		if err != nil || len(got) != 0 || next != "" {
			h.Errorf("removed %t: got %v, %q, %v; want nothing: who unsubscribes leaves no trace", removed, got, next, err)
		}
	}
}

func testDeviceMoves(h *harness) {
	org := h.org("fabrikam.com")
	h.subscribe(org, reg("anna", 1))
	h.subscribe(org, reg("anna", 2))
	other := reg("anna", 1)
	other.App = "com.example.calendar"
	h.subscribe(org, other)
	h.forget()
	moved := h.subscribe(org, reg("bert", 1))
	h.told("unsubscribed anna live", "subscribed bert live")
	if !moved.Created || !slices.Equal(moved.LeftMailboxes, []string{"anna"}) {
		h.Errorf("got %+v, want a new one that left anna", moved)
	}
	h.check(2, 3) // the other app of the same device stays
	h.subscribe(org, reg("bert", 2))
	h.ok(h.Unsubscribe(h.Context(), org, other))
	h.forget()
	h.subscribe(org, reg("carl", 1))
	h.subscribe(org, reg("carl", 2))
	h.told("unsubscribed bert live", "subscribed carl live", "unsubscribed bert", "subscribed carl live")
	h.check(1, 2)
}

func testApart(h *harness) {
	a, b := h.org("a.com"), h.org("b.com")
	h.subscribe(a, reg("anna", 1))
	got := h.subscribe(b, reg("bert", 1))
	if !got.Created || len(got.LeftMailboxes) > 0 {
		h.Errorf("got %+v, want nothing inferred from the other organization", got)
	}
	h.subscribe(b, reg("anna", 2))
	h.check(3, 3)
	h.want(h.Unsubscribe(h.Context(), a, reg("bert", 1)), registry.ErrSubscriptionNotFound)
	removed, err := h.Remove(h.Context(), []relay.Removal{{Key: key(b, "anna"), App: testApp, Device: token(1), Reason: "BadDeviceToken"}})
	if err != nil || removed[0] {
		h.Errorf("got %v, %v; want nothing removed", removed, err)
	}
	h.check(3, 3)
}

func testLimits(h *harness) {
	ctx := h.Context()
	org := h.org("small.com", registry.Limits{Apps: []string{testApp}, MaxMailboxes: 2, MaxSubscriptions: 3})
	h.subscribe(org, reg("a", 1))
	h.subscribe(org, reg("b", 2))
	_, err := h.Subscribe(ctx, org, reg("c", 3))
	h.limit(err, registry.LimitMailboxes, 2)
	h.subscribe(org, reg("b", 3))
	_, err = h.Subscribe(ctx, org, reg("b", 4))
	h.limit(err, registry.LimitSubscriptions, 3)
	h.subscribe(org, reg("b", 3)) // at the limits, renewing and moving go on
	h.subscribe(org, reg("c", 1)) // a goes, c comes
	_, err = h.Subscribe(ctx, org, reg("a", 2))
	h.limit(err, registry.LimitMailboxes, 2) // b stays, a would come
	wrong := reg("b", 3)
	wrong.App = "com.example.other"
	_, err = h.Subscribe(ctx, org, wrong)
	h.limit(err, registry.LimitApps, 1)
	h.check(2, 3)
	_, err = h.UpdateOrganization(ctx, "small.com", registry.OrganizationUpdate{Limits: &registry.Limits{MaxMailboxes: 1, MaxSubscriptions: 1}})
	h.ok(err)
	h.forget()
	h.subscribe(org, reg("b", 2)) // what is beyond a lowered limit stays
	_, err = h.Subscribe(ctx, org, reg("b", 4))
	h.limit(err, registry.LimitSubscriptions, 1)
	h.told("subscribed b live")
	h.check(2, 3)
}

func testRegistrationRules(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	long := strings.Repeat("x", 257)
	for field, bad := range map[string][]registry.Registration{
		"mailbox":      {reg("", 1), reg(long, 1), reg("\xff", 1), reg("a\x1bb", 1), reg("a\u0085", 1)},
		"app":          {{Mailbox: "m", Device: token(1)}, {Mailbox: "m", App: long, Device: token(1)}, {Mailbox: "m", App: "\xff", Device: token(1)}, {Mailbox: "m", App: "a\x00", Device: token(1)}},
		"device_token": {{Mailbox: "m", App: testApp}},
	} {
		for _, r := range bad {
			_, err := h.Subscribe(ctx, org, r)
			h.invalid(err, field)
			h.invalid(h.Unsubscribe(ctx, org, r), field)
		}
	}
	h.told()
	h.check(0, 0)
}

// oddMailboxes are legal and easy to get wrong.
func oddMailboxes() []string {
	return []string{"a", "A", "a ", " a", "ä", "a\u0308", "%", "_", "'", `"`, `\`, "a\u200bb", "a\u202eb", "日本", "👤", "null", "1", "1.0",
		strings.Repeat("x", 256), "[]", "--", "\uffff"}
}

func testOddMailboxes(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	odd := oddMailboxes()
	for i, mailbox := range odd {
		h.subscribe(org, reg(mailbox, i))
	}
	h.check(uint64(len(odd)), uint64(len(odd)))
	var keys []relay.MailboxKey
	for _, mailbox := range odd {
		keys = append(keys, key(org, mailbox))
	}
	found, err := h.Lookup(ctx, keys)
	h.ok(err)
	for i, subs := range found {
		if len(subs) != 1 || subs[0].Device != token(i) {
			h.Errorf("mailbox %q has %v, want its one device", odd[i], subs)
		}
	}
	slices.Sort(odd)
	if got, err := h.Mailboxes(ctx, org, "", 1000); err != nil || !slices.Equal(got, odd) {
		h.Errorf("got mailboxes %q, %v; want %q", got, err, odd)
	}
	var listed []string
	for page := (registry.Page{Size: 1}); ; {
		got, next, err := h.ListSubscriptions(ctx, registry.SubscriptionFilter{Organization: org}, page)
		h.ok(err)
		listed = append(listed, got[0].Mailbox)
		if page.Token = next; next == "" {
			break
		}
	}
	if !slices.Equal(listed, odd) {
		h.Errorf("listed mailboxes %q, want %q", listed, odd)
	}
}

func testImport(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	h.subscribe(org, reg("a", 1))
	h.subscribe(org, reg("a", 2))
	h.subscribe(org, reg("a", 3))
	h.forget()
	got, err := h.ImportSubscriptions(ctx, org, []registry.Registration{
		reg("a", 1),              // renewed
		reg("", 7),               // refused
		reg("b", 2),              // moves
		reg("b", 4), reg("c", 4), // comes, and moves on within the import
		reg("d", 3), reg("a", 3), // leaves and comes back
		{Mailbox: "b", App: testApp}, // refused
		reg("c", 4),                  // renewed
	})
	h.ok(err)
	if got.Created != 5 || got.Renewed != 2 || len(got.Rejections) != 2 || got.Rejections[0].Index != 1 || got.Rejections[1].Index != 7 {
		h.Fatalf("got %+v, want 5 created, 2 renewed, 1 and 7 refused", got)
	}
	h.invalid(got.Rejections[0].Err, "mailbox")
	h.invalid(got.Rejections[1].Err, "device_token")
	h.told("subscribed a live", "unsubscribed a live", "subscribed b live", "subscribed c live")
	h.check(3, 4)
	if found, err := h.Lookup(ctx, []relay.MailboxKey{key(org, "d")}); err != nil || len(found[0]) != 0 {
		h.Errorf("got %v, %v; want nobody on d", found, err)
	}
	got, err = h.ImportSubscriptions(ctx, org, nil)
	if err != nil || got.Created+got.Renewed != 0 || len(got.Rejections) != 0 {
		h.Errorf("got %+v, %v for an empty import", got, err)
	}
}

func testImportLimits(h *harness) {
	org := h.org("small.com", registry.Limits{Apps: []string{testApp}, MaxMailboxes: 2, MaxSubscriptions: 3})
	wrong := reg("a", 9)
	wrong.App = "other"
	got, err := h.ImportSubscriptions(h.Context(), org, []registry.Registration{
		reg("a", 1), reg("b", 2), reg("c", 3), wrong, reg("a", 3), reg("a", 4), reg("c", 1), reg("b", 1), reg("b", 3), reg("c", 2),
	})
	h.ok(err)
	// a:1 b:2 | c refused | other refused | a:1,3 | 4 refused | c refused | 1 moves to b | 3 moves to b, a goes | c comes with 2
	if got.Created != 6 || len(got.Rejections) != 4 {
		h.Fatalf("got %+v, want 6 created and 4 refused", got)
	}
	h.limit(got.Rejections[0].Err, registry.LimitMailboxes, 2)
	h.limit(got.Rejections[1].Err, registry.LimitApps, 1)
	h.limit(got.Rejections[2].Err, registry.LimitSubscriptions, 3)
	h.limit(got.Rejections[3].Err, registry.LimitMailboxes, 2)
	h.check(2, 3)
}

// testDryImport imports in parts as a dry run and then really: each part is decided on
// what the ones before would have changed.
func testDryImport(h *harness) {
	org := h.org("small.com", registry.Limits{MaxMailboxes: 2, MaxSubscriptions: 3})
	h.subscribe(org, reg("a", 1))
	h.forget()
	parts := [][]registry.Registration{
		{reg("b", 2), reg("a", 1), reg("b", 3)},
		{reg("b", 2), reg("a", 4), reg("c", 2), reg("a", 2)}, // renewed; one too many; a mailbox too many; moves
		{reg("a", 3), reg("c", 3)},                           // and b is empty
	}
	var outcomes [2][]string
	for i, c := range []registry.Changes{h.DryRun(), h} {
		for _, part := range parts {
			got, err := c.ImportSubscriptions(h.Context(), org, part)
			h.ok(err)
			outcomes[i] = append(outcomes[i], fmt.Sprint(got.Created, got.Renewed, got.Rejections))
		}
		if i == 0 {
			h.told() // nothing
			h.check(1, 1)
		}
	}
	if !slices.Equal(outcomes[0], outcomes[1]) {
		h.Errorf("a dry run has %q, the import %q", outcomes[0], outcomes[1])
	}
	h.check(2, 3)
}

// bulk is n registrations, two devices a mailbox.
func bulk(n int) []registry.Registration {
	rs := make([]registry.Registration, n)
	for i := range rs {
		rs[i] = reg(fmt.Sprintf("user%07d", i/2), i)
	}
	return rs
}

func testLargeImport(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	const n = 1501
	rs := bulk(n)
	rs[n-2].Mailbox = ""
	got, err := h.ImportSubscriptions(ctx, org, rs)
	h.ok(err)
	if got.Created != uint64(n-1) || len(got.Rejections) != 1 || got.Rejections[0].Index != n-2 {
		h.Errorf("got %d created, refused %v; want %d and number %d", got.Created, got.Rejections, n-1, n-2)
	}
	h.check(uint64(n+1)/2, uint64(n-1))
	got, err = h.ImportSubscriptions(ctx, org, bulk(n))
	h.ok(err)
	if got.Created != 1 || got.Renewed != uint64(n-1) || len(got.Rejections) != 0 {
		h.Errorf("again: got %+v, want 1 created, %d renewed", got, n-1)
	}
}

func testSubscriptionPages(h *harness) {
	ctx, org, other := h.Context(), h.org("fabrikam.com"), h.org("other.com")
	_, err := h.ImportSubscriptions(ctx, org, bulk(25))
	h.ok(err)
	_, err = h.ImportSubscriptions(ctx, other, bulk(3))
	h.ok(err)
	for _, size := range []int{1, 2, 24, 25, 26, 0} {
		var devices []apns.DeviceToken
		var order []string
		for page := (registry.Page{Size: size}); ; {
			got, next, err := h.ListSubscriptions(ctx, registry.SubscriptionFilter{Organization: org}, page)
			h.ok(err)
			for _, s := range got {
				devices, order = append(devices, s.Device), append(order, s.Mailbox+s.App+s.Device.Hex())
			}
			if page.Token = next; next == "" {
				break
			}
		}
		if len(devices) != 25 || !slices.IsSorted(order) {
			h.Errorf("pages of %d: got %d subscriptions, want 25 in order %v", size, len(devices), order)
		}
	}
	one, next, err := h.ListSubscriptions(ctx, registry.SubscriptionFilter{Organization: org, Mailbox: "user0000003"}, registry.Page{Size: 1})
	if err != nil || len(one) != 1 || one[0].Mailbox != "user0000003" || next == "" {
		h.Fatalf("got %+v, %q, %v; want one of two devices of the mailbox", one, next, err)
	}
	for _, f := range []registry.SubscriptionFilter{{Organization: org}, {Organization: other, Mailbox: "user0000003"},
		{Organization: org, Mailbox: "user0000003", Removed: true}} {
		_, _, err := h.ListSubscriptions(ctx, f, registry.Page{Token: next})
		h.invalid(err, "page_token") // of another list
	}
	h.ok(h.Unsubscribe(ctx, org, registry.Registration{Mailbox: one[0].Mailbox, App: one[0].App, Device: one[0].Device}))
	two, next, err := h.ListSubscriptions(ctx, registry.SubscriptionFilter{Organization: org, Mailbox: "user0000003"}, registry.Page{Size: 1, Token: next})
	if err != nil || len(two) != 1 || two[0].Device == one[0].Device || next != "" {
		h.Errorf("got %+v, %q, %v; want the second, though the first is gone", two, next, err)
	}
}

func testMailboxes(h *harness) {
	ctx, org, other := h.Context(), h.org("fabrikam.com"), h.org("other.com")
	_, err := h.ImportSubscriptions(ctx, org, bulk(21))
	h.ok(err)
	h.subscribe(other, reg("zoe", 1))
	var all []string
	for after := ""; ; after = all[len(all)-1] {
		got, err := h.Mailboxes(ctx, org, after, 4)
		h.ok(err)
		if len(got) == 0 {
			break
		}
		all = append(all, got...)
	}
	if len(all) != 11 || !slices.IsSorted(all) || all[0] != "user0000000" {
		h.Errorf("got %q, want 11 mailboxes in order", all)
	}
}
