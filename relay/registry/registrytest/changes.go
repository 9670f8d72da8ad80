package registrytest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

func testFeed(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	var first, second, cancelSelf int
	cancelFirst := h.OnChange(func(changes []registry.Change) {
		first += len(changes)
		for _, c := range changes { // what is told is committed
			found, err := h.Lookup(ctx, []relay.MailboxKey{key(c.Organization, c.Mailbox)})
			h.ok(err)
			if (len(found[0]) > 0) != c.Live {
				h.Errorf("told %s, found %v", describe(c), found[0])
			}
		}
	})
	cancelSecond := h.OnChange(func(changes []registry.Change) { second += len(changes) })
	var cancel func()
	cancel = h.OnChange(func([]registry.Change) { cancelSelf++; cancel() })
	h.subscribe(org, reg("a", 1))
	h.subscribe(org, reg("b", 1))
	if first != 3 || second != 3 || cancelSelf != 1 {
		h.Errorf("told %d, %d and %d, want 3, 3 and 1 when the call has returned", first, second, cancelSelf)
	}
	cancelFirst()
	cancelFirst()
	h.subscribe(org, reg("c", 3))
	cancelSecond()
	h.ok(h.Unsubscribe(ctx, org, reg("c", 3)))
	if first != 3 || second != 4 {
		h.Errorf("told %d and %d after cancel, want 3 and 4", first, second)
	}
}

// testFeedOrder keeps a copy of who is where by the changes alone, while many
// write at once; it must end as the registry does.
func testFeedOrder(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	live := make(map[string]bool) // of mailboxes
	var inside atomic.Int32
	h.OnChange(func(changes []registry.Change) {
		if inside.Add(1) != 1 {
			h.Error("listener is called twice at once")
		}
		defer inside.Add(-1)
		for _, c := range changes {
			live[c.Mailbox] = c.Live
		}
	})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			for range 40 {
				mailbox, device := fmt.Sprint("m", r.IntN(6)), r.IntN(8)
				if r.IntN(3) == 0 {
					_ = h.Unsubscribe(ctx, org, reg(mailbox, device)) // often there is nothing to take off
					continue
				}
				if _, err := h.Subscribe(ctx, org, reg(mailbox, device)); err != nil {
					h.Errorf("subscribe: %v", err)
				}
			}
		})
	}
	wg.Wait()
	got, err := h.Mailboxes(ctx, org, "", 100)
	h.ok(err)
	var want []string
	for mailbox, is := range live {
		if is {
			want = append(want, mailbox)
		}
	}
	if slices.Sort(want); !slices.Equal(got, want) {
		h.Errorf("mailboxes are %q, listeners were told %q", got, want)
	}
}

// testConcurrent has everything happen at once.
func testConcurrent(h *harness) {
	ctx := h.Context()
	a, b := h.org("a.com"), h.org("b.com", registry.Limits{MaxMailboxes: 5, MaxSubscriptions: 9})
	ops := []func(r *rand.Rand, org relay.OrganizationID) error{
		func(r *rand.Rand, org relay.OrganizationID) error {
			_, err := h.Subscribe(ctx, org, reg(fmt.Sprint("m", r.IntN(9)), r.IntN(20)))
			return err
		},
		func(r *rand.Rand, org relay.OrganizationID) error {
			rs := make([]registry.Registration, 30)
			for i := range rs {
				rs[i] = reg(fmt.Sprint("m", r.IntN(9)), r.IntN(20))
			}
			_, err := h.ImportSubscriptions(ctx, org, rs)
			return err
		},
		func(r *rand.Rand, org relay.OrganizationID) error {
			_, err := h.Remove(ctx, []relay.Removal{{Key: key(org, fmt.Sprint("m", r.IntN(9))), App: testApp, Device: token(r.IntN(20)), Reason: "BadDeviceToken"}})
			return err
		},
		func(r *rand.Rand, org relay.OrganizationID) error {
			_, err := h.Lookup(ctx, []relay.MailboxKey{key(org, "m1"), key(org, "m2")})
			return err
		},
		func(r *rand.Rand, org relay.OrganizationID) error {
			_, _, err := h.ListSubscriptions(ctx, registry.SubscriptionFilter{Organization: org, Removed: r.IntN(2) == 0}, registry.Page{})
			return err
		},
		func(*rand.Rand, relay.OrganizationID) error {
			return h.Scan(ctx, func([]registry.Entry) error { return nil })
		},
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(g)))
			for range 25 {
				org := a
				if r.IntN(2) == 0 {
					org = b
				}
				err := ops[r.IntN(len(ops))](r, org)
				if e, ok := errors.AsType[*registry.LimitError](err); err != nil && (!ok || org != b || e.Limit == registry.LimitApps) {
					h.Errorf("unexpected error: %v", err)
				}
			}
		})
	}
	wg.Wait()
	c, err := h.Counts(ctx)
	h.ok(err)
	h.check(c.Mailboxes, c.Subscriptions)
	if o, err := h.OrganizationByID(ctx, b); err != nil || o.Mailboxes > 5 || o.Subscriptions > 9 {
		h.Errorf("limits of 5 and 9 ended as %d and %d, %v", o.Mailboxes, o.Subscriptions, err)
	}
}

func testEndedContext(h *harness) {
	org := h.org("fabrikam.com")
	ctx, cancel := context.WithCancel(h.Context())
	cancel()
	_, err := h.Subscribe(ctx, org, reg("a", 1))
	h.want(err, context.Canceled)
	_, err = h.Lookup(ctx, []relay.MailboxKey{key(org, "a")})
	h.want(err, context.Canceled)
	h.told()
	h.check(0, 0)
	h.ok(h.Registry.Run(ctx))
}

func testClosed(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	h.ok(h.Close())
	_, err := h.Subscribe(ctx, org, reg("a", 1))
	h.want(err, registry.ErrUnavailable)
	_, err = h.Lookup(ctx, []relay.MailboxKey{key(org, "a")})
	h.want(err, registry.ErrUnavailable)
	_, err = h.GetOrganization(ctx, "fabrikam.com")
	h.want(err, registry.ErrUnavailable)
	h.ok(h.Close())
}
