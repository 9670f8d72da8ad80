package registrytest

import (
	"fmt"
	"slices"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// kept is a registration that leaves the device on its other mailboxes.
func kept(mailbox string, n int) registry.Registration {
	r := reg(mailbox, n)
	r.KeepOthers = true
	return r
}

// list is a device by number with its whole list.
func list(n int, mailboxes ...string) registry.DeviceMailboxes {
	return registry.DeviceMailboxes{App: testApp, Device: token(n), Mailboxes: mailboxes}
}

// subscribed checks what a registration answers.
func (h *harness) subscribed(got registry.SubscribeResult, created bool, left, others []string) {
	h.Helper()
	if got.Created != created || !slices.Equal(got.LeftMailboxes, left) || !slices.Equal(got.Subscription.OtherMailboxes, others) {
		h.Errorf("got %+v, want created %t, left %q, others %q", got, created, left, others)
	}
}

func testSeveralMailboxes(h *harness) {
	org := h.org("fabrikam.com")
	h.subscribe(org, reg("anna", 1))
	h.subscribe(org, reg("sales", 2))
	h.forget()
	h.subscribed(h.subscribe(org, kept("sales", 1)), true, nil, []string{"anna"})
	h.told("subscribed sales live", "device_shared ")
	h.subscribed(h.subscribe(org, kept("board", 1)), true, nil, []string{"anna", "sales"})
	h.told("subscribed board live", "device_shared ")
	h.check(3, 4)
	h.subscribed(h.subscribe(org, reg("sales", 1)), false, nil, []string{"anna", "board"})
	h.told("subscribed sales live") // a renewal takes the device off nothing
	h.check(3, 4)
	h.subscribed(h.subscribe(org, reg("carl", 1)), true, []string{"anna", "board", "sales"}, nil)
	h.told("unsubscribed anna", "unsubscribed board", "unsubscribed sales live", "subscribed carl live")
	h.check(2, 2)
	h.subscribed(h.subscribe(org, kept("anna", 1)), true, nil, []string{"carl"})
	h.forget()
	h.ok(h.Unsubscribe(h.Context(), org, reg("carl", 1)))
	h.told("unsubscribed carl")
	h.check(2, 2)
	other := kept("sales", 1)
	other.App = "com.example.calendar"
	h.subscribed(h.subscribe(org, other), true, nil, nil) // another app shows a badge of its own
	h.check(2, 3)
}

func testSetDevice(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	set := func(added, removed, kept []string, mailboxes ...string) {
		h.Helper()
		got, err := h.SetDevice(ctx, org, list(1, mailboxes...))
		if err != nil || !slices.Equal(got.Added, added) || !slices.Equal(got.Removed, removed) || !slices.Equal(got.Kept, kept) || !got.ExpiresAt.IsZero() {
			h.Errorf("%q: got %+v, %v; want added %q, removed %q, kept %q", mailboxes, got, err, added, removed, kept)
		}
	}
	set(nil, nil, nil)
	h.told()
	set([]string{"anna", "sales"}, nil, nil, "sales", "anna", "sales")
	h.told("subscribed anna live", "subscribed sales live", "device_shared ")
	h.check(2, 2)
	set(nil, nil, []string{"anna", "sales"}, "anna", "sales")
	h.told("subscribed anna live", "subscribed sales live")
	set([]string{"board"}, []string{"anna"}, []string{"sales"}, "board", "sales")
	h.told("unsubscribed anna", "subscribed board live", "subscribed sales live", "device_shared ")
	h.check(2, 2)
	set(nil, []string{"board"}, []string{"sales"}, "sales")
	h.check(1, 1)
	set(nil, []string{"sales"}, nil)
	h.check(0, 0)

	h.subscribe(org, reg("anna", 1))
	h.forget()
	for field, bad := range map[string]registry.DeviceMailboxes{
		"app":          {Device: token(1), Mailboxes: []string{"a"}},
		"device_token": {App: testApp, Mailboxes: []string{"a"}},
		"mailboxes[1]": list(1, "a", ""),
		"mailboxes":    list(1, many(registry.MaxDeviceMailboxes+1)...),
	} {
		_, err := h.SetDevice(ctx, org, bad)
		h.invalid(err, field)
	}
	_, err := h.SetDevice(ctx, 4711, list(1, "a"))
	h.want(err, registry.ErrOrganizationNotFound)
	h.told()
	h.check(1, 1)
}

// many is n names.
func many(n int) (mailboxes []string) {
	for i := range n {
		mailboxes = append(mailboxes, fmt.Sprintf("m%03d", i))
	}
	return mailboxes
}

func testDeviceLimits(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	all := many(registry.MaxDeviceMailboxes)
	twice := slices.Repeat(all, 3) // each counts once
	got, err := h.SetDevice(ctx, org, list(1, twice...))
	h.ok(err)
	if len(got.Added) != len(all) {
		h.Errorf("%d names of %d, each three times: got %d mailboxes", len(twice), len(all), len(got.Added))
	}
	_, err = h.Subscribe(ctx, org, kept("one more", 1))
	h.limit(err, registry.LimitDeviceMailboxes, registry.MaxDeviceMailboxes)
	h.subscribe(org, kept(all[7], 1)) // renewed
	moved := h.subscribe(org, reg("one", 1))
	h.subscribed(moved, true, all, nil) // and moving go on
	h.check(1, 1)

	small := h.org("small.com", registry.Limits{Apps: []string{testApp}, MaxMailboxes: 3, MaxSubscriptions: 4})
	h.subscribe(small, reg("a", 1))
	h.subscribe(small, reg("a", 2))
	_, err = h.SetDevice(ctx, small, list(1, "a", "b", "c", "d"))
	h.limit(err, registry.LimitSubscriptions, 4)
	_, err = h.SetDevice(ctx, small, list(1, "b", "c", "d")) // 4 subscriptions, but a goes on
	h.limit(err, registry.LimitMailboxes, 3)
	h.check(2, 3) // nothing of it was done
	_, err = h.SetDevice(ctx, small, list(1, "a", "b", "c"))
	h.ok(err)
	_, err = h.Subscribe(ctx, small, kept("a", 3))
	h.limit(err, registry.LimitSubscriptions, 4)
	_, err = h.SetDevice(ctx, small, list(1, "d", "e")) // b and c go, two come
	h.ok(err)
	h.check(4, 4)

	_, err = h.UpdateOrganization(ctx, "small.com", registry.OrganizationUpdate{Limits: &registry.Limits{Apps: []string{"other"}, MaxMailboxes: 1, MaxSubscriptions: 1}})
	h.ok(err)
	_, err = h.SetDevice(ctx, small, list(1, "d"))
	h.limit(err, registry.LimitApps, 1)
	_, err = h.SetDevice(ctx, small, list(1)) // leaving is not using
	h.ok(err)
	h.check(2, 2)
}

func testTwoOrganizations(h *harness) {
	ctx, a, b := h.Context(), h.org("a.com"), h.org("b.com")
	h.subscribe(a, reg("anna", 1))
	time.Sleep(2 * time.Millisecond) // times are kept to the millisecond
	h.forget()
	h.subscribed(h.subscribe(b, reg("bert", 1)), true, nil, nil) // b learns nothing of a
	h.told("subscribed bert live")
	h.check(2, 2)
	h.subscribed(h.subscribe(b, reg("carl", 1)), true, []string{"bert"}, nil) // and takes nothing from it
	h.told("unsubscribed bert", "subscribed carl live")
	h.check(2, 2)
	_, err := h.SetDevice(ctx, b, list(1, "bert", "carl"))
	h.ok(err)
	h.forget()
	h.check(3, 3)
	_, err = h.SetDevice(ctx, a, list(1))
	h.ok(err)
	h.told("unsubscribed anna")
	h.check(2, 2) // b is the first now
	_, err = h.SetDevice(ctx, b, list(1, "bert"))
	h.ok(err)
	h.subscribe(a, reg("anna", 1))
	h.check(2, 2)
	h.ok(h.RemoveOrganization(ctx, "b.com"))
	h.check(1, 1) // anna shares with nobody any more
	_, err = h.SetDevice(ctx, a, list(1, "anna", "sales"))
	h.ok(err)
	_, err = h.SetDevice(ctx, a, list(1, "sales"))
	h.ok(err)
	h.check(1, 1)
	_, err = h.RestoreOrganization(ctx, "b.com")
	h.ok(err)
	h.check(2, 2) // as before
	h.ok(h.RemoveOrganization(ctx, "b.com"))
	h.ok(h.PurgeOrganization(ctx, "b.com"))
	h.check(1, 1)
	h.subscribed(h.subscribe(a, kept("anna", 1)), true, nil, []string{"sales"})
	h.check(2, 2)
}

func testSharedEnd(h *harness) {
	ctx, a, b := h.Context(), h.org("a.com"), h.org("b.com")
	_, err := h.SetDevice(ctx, a, list(1, "anna", "board", "sales"))
	h.ok(err)
	_, err = h.SetDevice(ctx, a, list(2, "anna", "sales"))
	h.ok(err)
	h.subscribe(b, reg("bert", 1))
	h.forget()
	gone := func(org relay.OrganizationID, mailbox string, n int) relay.Removal {
		return relay.Removal{Key: key(org, mailbox), App: testApp, Device: token(n), Reason: "Unregistered"}
	}
	removed, err := h.Remove(ctx, []relay.Removal{gone(a, "anna", 1), gone(a, "board", 1), gone(a, "sales", 2), gone(a, "nowhere", 1)})
	if err != nil || !slices.Equal(removed, []bool{true, true, true, false}) {
		h.Errorf("got %v, %v; want all but the last removed", removed, err)
	}
	h.toldAnyOrder("unsubscribed anna live", "unsubscribed board", "unsubscribed sales live")
	h.check(3, 3)
	_, err = h.Remove(ctx, []relay.Removal{gone(b, "bert", 1)})
	h.ok(err)
	h.told("unsubscribed bert")
	h.check(2, 2)
}

func testImportSeveral(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	_, err := h.SetDevice(ctx, org, list(1, "old", "sales"))
	h.ok(err)
	h.subscribe(org, reg("old", 2))
	time.Sleep(2 * time.Millisecond) // times are kept to the millisecond
	since := time.Now()
	rows := []registry.Registration{reg("anna", 1), reg("sales", 1), reg("board", 1), reg("old", 2), reg("anna", 2)}
	for i := range rows {
		rows[i].KeepSince = since
	}
	for _, part := range [][]registry.Registration{rows[:1], rows[1:], rows} { // the last as after an interruption
		_, err := h.ImportSubscriptions(ctx, org, part)
		h.ok(err)
	}
	got, _, err := h.ListSubscriptions(ctx, registry.SubscriptionFilter{Organization: org}, registry.Page{})
	h.ok(err)
	where := map[string][]string{}
	for _, s := range got {
		where[s.Device.Hex()] = append(where[s.Device.Hex()], s.Mailbox)
	}
	if on := where[token(1).Hex()]; !slices.Equal(on, []string{"anna", "board", "sales"}) {
		h.Errorf("the first device is on %q, want all that it was imported for and no older one", on)
	}
	if on := where[token(2).Hex()]; !slices.Equal(on, []string{"anna", "old"}) {
		h.Errorf("the second device is on %q, want both", on)
	}
	h.check(4, 5)
}

// testRestoreSeveral restores the mailboxes of one device that ended together, and
// none that it has left since.
func testRestoreSeveral(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	end := func(mailboxes ...string) {
		h.Helper()
		for _, mailbox := range mailboxes {
			h.remove(org, "BadDeviceToken", reg(mailbox, 1))
		}
	}
	set := func(mailboxes ...string) {
		h.Helper()
		_, err := h.SetDevice(ctx, org, list(1, mailboxes...))
		h.ok(err)
	}
	const left = ": subscription is superseded"
	set("anna", "board", "sales")
	end("anna", "board", "sales")
	h.wouldRestore("anna", "board", "sales")
	h.check(0, 0)
	h.restored(registry.RestoreRequest{}, "anna", "board", "sales")
	h.check(3, 3)
	end("board")
	h.subscribe(org, reg("sales", 1)) // a renewal leaves nothing
	h.subscribe(org, kept("carl", 1)) // nor does this
	h.forget()
	h.restored(registry.RestoreRequest{}, "board")
	h.told("subscribed board live", "device_shared ")
	h.check(4, 4)
	end("board")
	set("anna", "carl", "sales") // nothing but renewals, and board is none of them
	h.restored(registry.RestoreRequest{}, "board"+left)
	end("carl")
	set("anna", "carl", "sales")
	h.restored(registry.RestoreRequest{}, "board"+left)
	end("anna")
	set()
	h.restored(registry.RestoreRequest{}, "anna"+left, "board"+left)
	set("anna", "sales")
	end("anna", "sales")
	h.subscribe(org, reg("dora", 1))
	h.restored(registry.RestoreRequest{}, "anna"+left, "board"+left, "sales"+left)
	h.check(1, 1)
}
