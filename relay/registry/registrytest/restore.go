package registrytest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// remove has APNs end subscriptions.
func (h *harness) remove(org relay.OrganizationID, reason apns.Reason, rs ...registry.Registration) {
	h.Helper()
	var removals []relay.Removal
	for _, r := range rs {
		removals = append(removals, relay.Removal{Key: key(org, r.Mailbox), App: r.App, Device: r.Device, Reason: reason})
	}
	removed, err := h.Remove(h.Context(), removals)
	h.ok(err)
	if slices.Contains(removed, false) {
		h.Fatalf("removed %v of %v", removed, rs)
	}
	h.forget()
}

// restore restores, and returns what became of each: "mailbox", or "mailbox:
// why not".
func (h *harness) restore(c registry.Changes, r registry.RestoreRequest) (did []string) {
	h.Helper()
	h.ok(c.Restore(h.Context(), r, func(part []registry.Restoration) error {
		if len(part) == 0 || len(part) > 1000 {
			h.Errorf("told of %d at once", len(part))
		}
		for _, one := range part {
			if one.Subscription.RemovedAt.IsZero() || one.Subscription.RemovalReason == "" || one.OrganizationName == "" {
				h.Errorf("told of %+v, want it as it was when it ended", one)
			}
			s := one.Subscription.Mailbox
			if l, ok := errors.AsType[*registry.LimitError](one.Err); ok {
				s += ": " + l.Limit
			} else if one.Err != nil {
				s += ": " + one.Err.Error()
			}
			did = append(did, s)
		}
		return nil
	}))
	return did
}

func (h *harness) restored(r registry.RestoreRequest, want ...string) {
	h.Helper()
	if got := h.restore(h, r); !slices.Equal(got, want) {
		h.Errorf("restored %q, want %q", got, want)
	}
}

// wouldRestore checks what a dry run says of all that can be restored.
func (h *harness) wouldRestore(want ...string) {
	h.Helper()
	if got := h.restore(h.DryRun(), registry.RestoreRequest{}); !slices.Equal(got, want) {
		h.Errorf("a dry run restored %q, want %q", got, want)
	}
}

func (h *harness) removedCount(org relay.OrganizationID) int {
	h.Helper()
	got, _, err := h.ListSubscriptions(h.Context(), registry.SubscriptionFilter{Organization: org, Removed: true}, registry.Page{Size: 1000})
	h.ok(err)
	return len(got)
}

func testRestore(h *harness) {
	org := h.org("fabrikam.com")
	first := h.subscribe(org, reg("a", 1)).Subscription
	h.subscribe(org, reg("a", 2))
	h.subscribe(org, reg("b", 3))
	h.remove(org, "BadDeviceToken", reg("a", 1), reg("a", 2))
	h.check(1, 1)
	h.wouldRestore("a", "a")
	h.told() // nothing
	h.check(1, 1)
	if n := h.removedCount(org); n != 2 {
		h.Errorf("%d are removed after a dry run, want 2", n)
	}
	before := time.Now().Truncate(time.Millisecond)
	h.restored(registry.RestoreRequest{}, "a", "a")
	h.told("subscribed a live")
	h.check(2, 3)
	if n := h.removedCount(org); n != 0 {
		h.Errorf("%d are removed still, want none", n)
	}
	got, _, err := h.ListSubscriptions(h.Context(), registry.SubscriptionFilter{Organization: org, Mailbox: "a"}, registry.Page{})
	h.ok(err)
	for _, s := range got {
		if s.Device == first.Device && (s.CreatedAt != first.CreatedAt || s.RegisteredAt.Before(before) || !s.RemovedAt.IsZero()) {
			h.Errorf("got %+v, want it created at %v and registered anew", s, first.CreatedAt)
		}
	}
	h.restored(registry.RestoreRequest{}) // repeating it does nothing
	h.told()
	h.remove(org, "Unregistered", reg("a", 1)) // a restored one ends like others
	h.restored(registry.RestoreRequest{}, "a")
	h.check(2, 3)
	if moved := h.subscribe(org, reg("c", 1)); !slices.Equal(moved.LeftMailboxes, []string{"a"}) { // and its device is found
		h.Errorf("got %+v, want the restored device to leave a", moved)
	}
	h.check(3, 3)
}

func testRestoreFilter(h *harness) {
	a, b := h.org("a.com"), h.org("b.com")
	calendar := reg("cal", 3)
	calendar.App = "com.example.calendar"
	for org, rs := range map[relay.OrganizationID][]registry.Registration{a: {reg("one", 1), reg("two", 2), calendar}, b: {reg("one", 1)}} {
		for _, r := range rs {
			h.subscribe(org, r)
		}
	}
	h.remove(a, "BadDeviceToken", reg("one", 1), calendar)
	h.remove(b, "BadDeviceToken", reg("one", 1))
	time.Sleep(2 * time.Millisecond) // times are kept to the millisecond
	h.remove(a, "Unregistered", reg("two", 2))
	list, _, err := h.ListSubscriptions(h.Context(), registry.SubscriptionFilter{Organization: a, Removed: true, Mailbox: "two"}, registry.Page{})
	h.ok(err)
	at := list[0].RemovedAt
	for _, c := range []struct {
		name string
		r    registry.RestoreRequest
		want []string
	}{
		{"all", registry.RestoreRequest{}, []string{"cal", "one", "two", "one"}},
		{"organization", registry.RestoreRequest{Organization: b}, []string{"one"}},
		{"app", registry.RestoreRequest{App: calendar.App}, []string{"cal"}},
		{"reason", registry.RestoreRequest{Reason: "Unregistered"}, []string{"two"}},
		{"mailbox", registry.RestoreRequest{Mailbox: "one"}, []string{"one", "one"}},
		{"from", registry.RestoreRequest{From: at}, []string{"two"}},
		{"until", registry.RestoreRequest{Until: at}, []string{"cal", "one", "one"}},
		{"between", registry.RestoreRequest{From: at, Until: at.Add(time.Millisecond)}, []string{"two"}},
		{"all of them", registry.RestoreRequest{Organization: a, App: testApp, Reason: "BadDeviceToken", Until: at}, []string{"one"}},
		{"nothing", registry.RestoreRequest{Organization: b, Reason: "Unregistered"}, nil},
	} {
		if got := h.restore(h.DryRun(), c.r); !slices.Equal(got, c.want) {
			h.Errorf("%s: would restore %q, want %q", c.name, got, c.want)
		}
	}
	h.restored(registry.RestoreRequest{Organization: a, App: testApp, Reason: "BadDeviceToken"}, "one")
	h.check(1, 1)
	h.restored(registry.RestoreRequest{}, "cal", "two", "one")
	h.check(4, 4)

	tell := func([]registry.Restoration) error { return errors.New("not told") }
	h.want(h.Restore(h.Context(), registry.RestoreRequest{Organization: 99}, tell), registry.ErrOrganizationNotFound)
	h.invalid(h.Restore(h.Context(), registry.RestoreRequest{Mailbox: "\xff"}, tell), "mailbox")
	h.invalid(h.Restore(h.Context(), registry.RestoreRequest{App: "\xff"}, tell), "app")
	h.invalid(h.Restore(h.Context(), registry.RestoreRequest{From: at, Until: at}, tell), "removed_until")
	h.remove(b, "Unregistered", reg("one", 1))
	mine := errors.New("the caller's")
	if err := h.Restore(h.Context(), registry.RestoreRequest{}, func([]registry.Restoration) error { return mine }); !errors.Is(err, mine) || errors.Is(err, registry.ErrUnavailable) {
		h.Errorf("got %v, want the caller's error", err)
	}
}

func testRestoreSuperseded(h *harness) {
	ctx, org, other := h.Context(), h.org("fabrikam.com"), h.org("other.com")
	for i, m := range []string{"moved", "moved and gone", "renewed", "taken off", "stays", "refused twice"} {
		h.subscribe(org, reg(m, i))
		h.remove(org, "Unregistered", reg(m, i))
	}
	h.subscribe(org, reg("elsewhere", 0))
	h.subscribe(org, reg("elsewhere", 1))
	h.ok(h.Unsubscribe(ctx, org, reg("elsewhere", 1)))
	h.subscribe(org, reg("renewed", 2)) // is not removed any more
	h.want(h.Unsubscribe(ctx, org, reg("taken off", 3)), registry.ErrSubscriptionNotFound)
	h.subscribe(other, reg("elsewhere", 4)) // nothing is inferred from another organization
	h.subscribe(org, reg("last", 5))
	h.remove(org, "Unregistered", reg("last", 5))
	want := []string{"last", "moved: subscription is superseded", "moved and gone: subscription is superseded",
		"refused twice: subscription is superseded", "stays", "taken off: subscription is superseded"}
	h.wouldRestore(want...)
	h.forget()
	h.restored(registry.RestoreRequest{}, want...)
	h.told("subscribed last live", "subscribed stays live")
	h.check(5, 5)
	h.restored(registry.RestoreRequest{}, want[1], want[2], want[3], want[5])
	found, err := h.Lookup(ctx, []relay.MailboxKey{key(org, "elsewhere"), key(org, "moved")})
	if err != nil || len(found[0]) != 1 || len(found[1]) != 0 {
		h.Errorf("got %v, %v; want the device where it registered last", found, err)
	}
}

func testRestoreLimits(h *harness) {
	org := h.org("small.com", registry.Limits{MaxMailboxes: 2, MaxSubscriptions: 3})
	h.subscribe(org, reg("a", 1))
	h.subscribe(org, reg("a", 2))
	h.subscribe(org, reg("b", 3))
	h.remove(org, "Expired", reg("a", 1), reg("a", 2), reg("b", 3))
	h.subscribe(org, reg("c", 4))
	want := []string{"a", "a", "b: max_subscriptions"}
	h.wouldRestore(want...)
	h.restored(registry.RestoreRequest{}, want...)
	h.check(2, 3)
	h.ok(h.Unsubscribe(h.Context(), org, reg("a", 1)))
	h.restored(registry.RestoreRequest{}, "b: max_mailboxes")
	_, err := h.UpdateOrganization(h.Context(), "small.com", registry.OrganizationUpdate{Limits: &registry.Limits{Apps: []string{"another"}}})
	h.ok(err)
	h.restored(registry.RestoreRequest{}, "b: apps")
	_, err = h.UpdateOrganization(h.Context(), "small.com", registry.OrganizationUpdate{Limits: &registry.Limits{}})
	h.ok(err)
	h.restored(registry.RestoreRequest{}, "b") // it was kept
	h.check(3, 3)
}

// testRestoreMany restores more than go in a transaction, up to the limits, of
// which a dry run knows as much.
func testRestoreMany(h *harness) {
	const n, most = 2600, 2201
	org := h.org("many.com", registry.Limits{MaxMailboxes: 4, MaxSubscriptions: most})
	rs := make([]registry.Registration, n)
	for i := range rs {
		rs[i] = reg(fmt.Sprint("box", i/1250), i) // three mailboxes, the first two larger than a transaction
	}
	free := registry.Limits{MaxMailboxes: 4}
	_, err := h.UpdateOrganization(h.Context(), "many.com", registry.OrganizationUpdate{Limits: &free})
	h.ok(err)
	_, err = h.ImportSubscriptions(h.Context(), org, rs)
	h.ok(err)
	h.remove(org, "BadDeviceToken", rs...)
	tight := registry.Limits{MaxMailboxes: 2, MaxSubscriptions: most}
	_, err = h.UpdateOrganization(h.Context(), "many.com", registry.OrganizationUpdate{Limits: &tight})
	h.ok(err)
	h.check(0, 0)
	would := h.restore(h.DryRun(), registry.RestoreRequest{Organization: org})
	h.check(0, 0)
	did := h.restore(h, registry.RestoreRequest{Organization: org})
	if !slices.Equal(would, did) || len(did) != n {
		h.Errorf("restored %d, and a dry run said %d, or others", len(did), len(would))
	}
	h.check(2, most)
}
