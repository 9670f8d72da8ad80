package registrytest

import (
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// refusal is one of a device that may be told from others by a later time of its
// registration.
func refusal(org relay.OrganizationID, r registry.Registration, registered time.Time) relay.Refusal {
	return relay.Refusal{
		Key: key(org, r.Mailbox), App: r.App, Device: r.Device, Reason: "BadDeviceToken",
		SentAt: time.Now(), Registered: registered, Generation: 1<<63 + 5,
	}
}

// quarantine returns what is remembered of a device, by each way of reading it.
func (h *harness) quarantine(org relay.OrganizationID, r registry.Registration) *relay.Quarantine {
	h.Helper()
	ctx := h.Context()
	found, err := h.Lookup(ctx, []relay.MailboxKey{key(org, r.Mailbox)})
	h.ok(err)
	var got []*relay.Quarantine
	for _, s := range found[0] {
		if s.Device == r.Device {
			got = append(got, s.Quarantine)
		}
	}
	h.ok(h.Scan(ctx, func(batch []registry.Entry) error {
		for _, e := range batch {
			if e.Key == key(org, r.Mailbox) && e.Subscription.Device == r.Device {
				got = append(got, e.Subscription.Quarantine)
			}
		}
		return nil
	}))
	list, _, err := h.ListSubscriptions(ctx, registry.SubscriptionFilter{Organization: org, Mailbox: r.Mailbox}, registry.Page{})
	h.ok(err)
	for _, s := range list {
		if s.Device == r.Device {
			got = append(got, s.Quarantine)
		}
	}
	if len(got) != 3 {
		h.Fatalf("%s is found %d times", r.Mailbox, len(got))
	}
	for _, q := range got[1:] {
		if (q == nil) != (got[0] == nil) || q != nil && *q != *got[0] {
			h.Fatalf("%s: look-up, scan and list differ: %+v, %+v, %+v", r.Mailbox, got[0], got[1], got[2])
		}
	}
	return got[0]
}

func testRefuse(h *harness) {
	ctx, org := h.Context(), h.org("fabrikam.com")
	at := h.subscribe(org, reg("a", 1)).Subscription.RegisteredAt
	h.subscribe(org, reg("a", 2))
	h.forget()

	// The first refusal of a device that nobody knows to be one.
	before := time.Now().Truncate(time.Millisecond)
	judged, err := h.Refuse(ctx, []relay.Refusal{refusal(org, reg("a", 1), at), refusal(org, reg("b", 1), at), refusal(99, reg("a", 1), at)})
	h.ok(err)
	if judged[0].Verdict != relay.RefusalHolds || judged[1].Verdict != relay.RefusalSpares || judged[2].Verdict != relay.RefusalSpares {
		h.Fatalf("judged %+v", judged)
	}
	h.told()
	q := h.quarantine(org, reg("a", 1))
	if q == nil || *q != *judged[0].Quarantine || q.Generation != 1<<63+5 || q.Refusals != 1 || q.Reason != "BadDeviceToken" ||
		!q.Registered.Equal(at) || q.Since.Before(before) || !q.InForce(1<<63+5, at) {
		h.Fatalf("remembered %+v of %+v", q, judged[0].Quarantine)
	}
	if other := h.quarantine(org, reg("a", 2)); other != nil {
		h.Errorf("the device beside it has %+v", other)
	}

	// A registration lifts it, and what was refused is remembered all the same.
	time.Sleep(2 * time.Millisecond)
	renewed := h.subscribe(org, reg("a", 1)).Subscription.RegisteredAt
	if q := h.quarantine(org, reg("a", 1)); q == nil || q.InForce(1<<63+5, renewed) {
		h.Errorf("after a registration at %v: %+v", renewed, q)
	}
	h.forget()

	// A push that was on its way before that registration.
	late := refusal(org, reg("a", 1), at)
	late.Accepted = true
	judged, err = h.Refuse(ctx, []relay.Refusal{late})
	h.ok(err)
	if judged[0].Verdict != relay.RefusalSpares {
		h.Errorf("a newer registration was judged %+v", judged[0])
	}

	// APNs takes the device.
	h.ok(h.ForgetRefusals(ctx, []relay.Subscriber{
		{Key: key(org, "a"), App: testApp, Device: token(1)}, {Key: key(org, "a"), App: testApp, Device: token(2)},
		{Key: key(org, "z"), App: testApp, Device: token(1)}, {Key: key(99, "a"), App: testApp, Device: token(1)},
	}))
	h.told("subscribed a live")
	if q := h.quarantine(org, reg("a", 1)); q != nil {
		h.Errorf("remembered after it was accepted: %+v", q)
	}
	h.ok(h.ForgetRefusals(ctx, nil))

	// One that APNs has accepted before is gone.
	gone := refusal(org, reg("a", 1), renewed)
	gone.Accepted = true
	judged, err = h.Refuse(ctx, []relay.Refusal{gone, gone})
	h.ok(err)
	if judged[0].Verdict != relay.RefusalRemoves {
		h.Errorf("judged %+v", judged[0])
	}
	h.told("unsubscribed a live")
	removed, _, err := h.ListSubscriptions(ctx, registry.SubscriptionFilter{Organization: org, Removed: true}, registry.Page{})
	h.ok(err)
	if len(removed) != 1 || removed[0].RemovalReason != "BadDeviceToken" || !removed[0].RegisteredAt.Equal(renewed) {
		h.Errorf("removed %+v", removed)
	}
	h.check(1, 1)
	if judged, err = h.Refuse(ctx, nil); err != nil || len(judged) != 0 {
		h.Errorf("%+v, %v for nothing", judged, err)
	}
}

// testRemovalBudget has many more devices die than may leave within an hour.
func testRemovalBudget(h *harness) {
	ctx, a, b := h.Context(), h.org("a.com"), h.org("b.com")
	_, err := h.ImportSubscriptions(ctx, a, bulk(1500))
	h.ok(err)
	_, err = h.ImportSubscriptions(ctx, b, bulk(500))
	h.ok(err)
	other := registry.Registration{Mailbox: "other", App: "another.app", Device: token(1)}
	h.subscribe(a, other)
	var refusals []relay.Refusal
	die := func(org relay.OrganizationID, rs []registry.Registration) {
		for _, r := range rs {
			f := refusal(org, r, time.Now().Add(time.Hour))
			f.Reason, f.GoneSince = "Unregistered", time.Now().Add(time.Hour)
			refusals = append(refusals, f)
		}
	}
	die(a, bulk(1500))
	die(b, bulk(500))
	judged, err := h.Refuse(ctx, refusals)
	h.ok(err)
	ended, putOff := 0, 0
	for _, j := range judged {
		switch {
		case j.Verdict == relay.RefusalRemoves:
			ended++
		case j.OverBudget && j.Verdict == relay.RefusalHolds && j.Quarantine != nil:
			putOff++
		}
	}
	if ended != 100 || putOff != 1900 {
		h.Errorf("%d ended and %d were put off, want a twentieth of 2000", ended, putOff)
	}
	// The next relay, at once.
	if judged, err = h.Refuse(ctx, refusals[len(refusals)-1:]); err != nil || judged[0].Verdict != relay.RefusalHolds || !judged[0].OverBudget {
		h.Errorf("%+v, %v: one more within the hour", judged[0], err)
	}
	f := refusal(a, other, time.Now().Add(time.Hour))
	f.Accepted = true
	if judged, err = h.Refuse(ctx, []relay.Refusal{f}); err != nil || judged[0].Verdict != relay.RefusalRemoves {
		h.Errorf("%+v, %v of another app, which has a budget of its own", judged[0], err)
	}
	counts, err := h.Counts(ctx)
	h.ok(err)
	if counts.Subscriptions != 1900 {
		h.Errorf("%d subscriptions left, want 1900", counts.Subscriptions)
	}
}

func testNoteAccepted(h *harness) {
	ctx := h.Context()
	for i, step := range []struct {
		app        string
		generation relay.Generation
		n, want    int
	}{
		{"mail", 1, 0, 0}, {"mail", 1, 40, 40}, {"mail", 1, 7, 40}, {"mail", 2, 7, 7}, {"mail", 1 << 63, 3, 3}, {"other", 1, 1, 1}, {"mail", 1, 41, 41},
	} {
		got, err := h.NoteAccepted(ctx, step.app, step.generation, step.n)
		h.ok(err)
		if got != step.want {
			h.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
	h.told()
}
