package registrytest

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// exchange brings counts of a device's mailboxes as a relay does.
func (h *harness) exchange(relayName string, n int, counts ...relay.ReceivedCount) relay.SharedDevice {
	h.Helper()
	return h.exchangeAll(relay.ExchangeRequest{Relay: relayName, ShownFor: time.Hour,
		Devices: []relay.SharedUpdate{{DeviceKey: deviceKey(n), Counts: counts}}}).Devices[0]
}

func (h *harness) exchangeAll(x relay.ExchangeRequest) relay.ExchangeResult {
	h.Helper()
	result, err := h.Exchange(h.Context(), x)
	h.ok(err)
	if len(result.Devices) != len(x.Devices) {
		h.Fatalf("%d devices were asked about, the answer has %d", len(x.Devices), len(result.Devices))
	}
	for i := range result.Devices {
		if result.Devices[i].DeviceKey != x.Devices[i].DeviceKey {
			h.Fatalf("answer %d is about %v, want %v", i, result.Devices[i].DeviceKey, x.Devices[i].DeviceKey)
		}
	}
	return result
}

func deviceKey(n int) relay.DeviceKey { return relay.DeviceKey{App: testApp, Device: token(n)} }

// received is a count that a relay received at a time.
func received(k relay.MailboxKey, count uint32, at time.Time) relay.ReceivedCount {
	return relay.ReceivedCount{Key: k, Count: count, ReceivedAt: at.UTC().Truncate(time.Microsecond)}
}

// wantSum checks a device's sum and its parts, as "mailbox=count", or "mailbox" for
// one that nobody has reported, with " pending count" where there is a newer one.
func (h *harness) wantSum(d relay.SharedDevice, sum uint32, parts ...string) {
	h.Helper()
	var got []string
	for _, p := range d.Parts {
		text := fmt.Sprintf("%s=%d", p.Key.Mailbox, p.Count)
		switch p.State {
		case relay.PartUnreported:
			text = p.Key.Mailbox
		case relay.PartFirstWaits:
			text = fmt.Sprint(p.Key.Mailbox, " pending ", p.NewestCount)
		case relay.PartNewerWaits:
			text += fmt.Sprint(" pending ", p.NewestCount)
		case relay.PartCurrent, relay.PartForgotten:
		}
		if p.Disabled {
			text += " disabled"
		}
		got = append(got, text)
	}
	if !d.Shared || d.Sum() != sum || !slices.Equal(got, parts) {
		h.Fatalf("shared %v, sum %d of %q, want %d of %q", d.Shared, d.Sum(), got, sum, parts)
	}
}

func (h *harness) isShared(k relay.MailboxKey) bool {
	h.Helper()
	found, err := h.Lookup(h.Context(), []relay.MailboxKey{k})
	h.ok(err)
	return len(found[0]) == 1 && found[0][0].Shared
}

func (h *harness) sharedDevices() (keys []relay.DeviceKey) {
	h.Helper()
	h.ok(h.SharedDevices(h.Context(), func(batch []relay.DeviceKey) error {
		keys = append(keys, slices.Clone(batch)...)
		return nil
	}))
	return keys
}

// testShared has a device become shared and not be any more.
func testShared(h *harness) {
	a, b := h.org("a.com"), h.org("b.com")
	h.subscribe(a, reg("anna", 1))
	if d := h.exchange("one", 1, received(key(a, "anna"), 3, time.Now())); d.Shared || len(d.Parts) != 1 {
		h.Fatalf("a device on one mailbox is %+v", d)
	}
	if d := h.exchange("one", 2); d.Shared || len(d.Parts) != 0 {
		h.Fatalf("a device on no mailbox is %+v", d)
	}
	h.subscribe(b, reg("berta", 1))
	h.forget()
	d := h.exchange("one", 1, received(key(a, "anna"), 3, time.Now()), received(key(b, "nobody"), 3, time.Now()))
	h.wantSum(d, 3, "anna=3", "berta")
	h.told("device_shared ")
	if !h.isShared(key(a, "anna")) || !h.isShared(key(b, "berta")) {
		h.Error("a look-up does not say that the device is shared")
	}
	if got := h.sharedDevices(); !slices.Equal(got, []relay.DeviceKey{deviceKey(1)}) {
		h.Errorf("shared devices are %v", got)
	}
	h.wantSum(h.exchange("one", 1, received(key(b, "berta"), 4, time.Now())), 7, "anna=3", "berta=4")
	h.told() // it was known
	h.wantSum(h.exchange("one", 1), 7, "anna=3", "berta=4")

	h.ok(h.Unsubscribe(h.Context(), b, reg("berta", 1)))
	d = h.exchange("one", 1)
	h.wantSum(d, 3, "anna=3")
	d = h.exchangeAll(relay.ExchangeRequest{Relay: "one", ShownFor: time.Hour, Devices: []relay.SharedUpdate{{DeviceKey: deviceKey(1), Accepted: d.Sequence}}}).Devices[0]
	if d.Shared || h.isShared(key(a, "anna")) || len(h.sharedDevices()) != 0 {
		h.Fatalf("a device on one mailbox again is still shared: %+v", d)
	}

	h.subscribe(b, reg("berta", 1))
	h.forget()
	amongSeveral := relay.ExchangeRequest{Relay: "one", Lifetime: time.Minute, Devices: []relay.SharedUpdate{{DeviceKey: deviceKey(1)}}}
	h.exchangeAll(amongSeveral)
	h.told("device_shared ")
	h.ok(h.Unsubscribe(h.Context(), a, reg("anna", 1)))
	h.ok(h.Unsubscribe(h.Context(), b, reg("berta", 1)))
	h.forget()
	h.exchangeAll(amongSeveral)
	h.told("device_shared ") // for the relays that take it for shared
	h.exchangeAll(amongSeveral)
	h.told() // they know
}

// testSharedByRegistration has look-ups tell of a device that is on mailboxes of two
// organizations before any relay does.
func testSharedByRegistration(h *harness) {
	a, b := h.org("a.com"), h.org("b.com")
	h.subscribe(a, reg("anna", 1))
	if h.isShared(key(a, "anna")) {
		h.Fatal("a device on one mailbox is shared")
	}
	_, err := h.ImportSubscriptions(h.Context(), b, []registry.Registration{reg("berta", 1), reg("berta", 2)})
	h.ok(err)
	if !h.isShared(key(a, "anna")) {
		h.Fatal("a look-up does not say that the device is shared")
	}
	found, err := h.Lookup(h.Context(), []relay.MailboxKey{key(b, "berta")})
	h.ok(err)
	if n := len(slices.DeleteFunc(found[0], func(s relay.Subscription) bool { return !s.Shared })); n != 1 {
		h.Fatalf("%d of two devices are shared, want 1", n)
	}
	h.ok(h.Unsubscribe(h.Context(), b, reg("berta", 1)))
	if d := h.exchange("one", 1); d.Shared || d.Outstanding() {
		h.Fatalf("a device on one mailbox, whose sum was never shown, is %+v", d)
	}
	if h.isShared(key(a, "anna")) {
		h.Fatal("it is shared though it is on one mailbox again")
	}
}

// testSharedOfOneOrganization has a device on mailboxes of two organizations, of an
// app that shows no sum across them.
func testSharedOfOneOrganization(h *harness) {
	a, b := h.org("a.com"), h.org("b.com")
	h.subscribe(b, reg("berta", 1))
	time.Sleep(2 * time.Millisecond)
	h.subscribe(a, reg("anna", 1))
	exchange := func(counts ...relay.ReceivedCount) relay.SharedDevice {
		h.Helper()
		return h.exchangeAll(relay.ExchangeRequest{Relay: "one", ShownFor: time.Hour, Devices: []relay.SharedUpdate{{
			DeviceKey: deviceKey(1), Counts: counts, OneOrganization: true}}}).Devices[0]
	}
	d := exchange(received(key(a, "anna"), 3, time.Now()), received(key(b, "berta"), 4, time.Now()))
	h.wantSum(d, 4, "anna pending 3 disabled", "berta=4")
	if again := exchange(received(key(a, "anna"), 5, time.Now())); again.Sequence != d.Sequence {
		h.Error("a count that is not in the sum changed it")
	}
	h.subscribe(b, reg("bea", 1)) // it moves, and is the same organization's
	h.wantSum(exchange(), 0, "anna pending 5 disabled", "bea")
	h.ok(h.Unsubscribe(h.Context(), b, reg("bea", 1)))
	d = exchange()
	h.wantSum(d, 5, "anna=5")
	if !d.Outstanding() {
		h.Error("the sum of the organization that is left is not pushed")
	}
}

// testSharedCounts brings counts in and out of order, as several relays do; one that is
// alone knows the order.
func testSharedCounts(h *harness) {
	a, b := h.org("a.com"), h.org("b.com")
	h.subscribe(a, reg("anna", 1))
	h.subscribe(b, reg("berta", 1))
	time.Sleep(2 * time.Millisecond) // what is stored is newer than the registration
	now := h.exchangeAll(relay.ExchangeRequest{Relay: "one"}).Now
	anna := func(n uint32, ago time.Duration) relay.ReceivedCount {
		return received(key(a, "anna"), n, now.Add(-ago))
	}
	bring := func(relayName string, counts ...relay.ReceivedCount) relay.SharedDevice {
		h.Helper()
		return h.exchangeAll(relay.ExchangeRequest{Relay: relayName, Lifetime: time.Hour, ShownFor: time.Hour,
			Devices: []relay.SharedUpdate{{DeviceKey: deviceKey(1), Counts: counts}}}).Devices[0]
	}
	first := bring("one", anna(5, 10*time.Second))
	h.wantSum(first, 5, "anna=5", "berta")
	late := bring("two", anna(4, 11*time.Second))
	h.wantSum(late, 5, "anna=5", "berta")
	if late.Sequence != first.Sequence {
		h.Error("a late count changed the sum")
	}
	again := bring("two", anna(5, 9*time.Second))
	if again.Sequence != first.Sequence || again.Parts[0].Sequence != first.Parts[0].Sequence {
		h.Error("the same count changed the sum")
	}
	h.wantSum(bring("one", anna(6, 9500*time.Millisecond)), 5, "anna=5", "berta") // older than what says the same
	newer := bring("one", anna(7, 8*time.Second), received(key(b, "berta"), 1<<31-1, now))
	h.wantSum(newer, 1<<31-1, "anna=7", "berta=2147483647")
	if newer.Sequence <= again.Sequence || !newer.Outstanding() {
		h.Error("a newer count did not change the sum")
	}
	h.wantSum(bring("one", relay.ReceivedCount{Key: key(a, "anna"), Count: 1}), 1<<31-1, "anna=7", "berta=2147483647")
	h.wantSum(h.exchange("one", 1, anna(8, 20*time.Second)), 1<<31-1, "anna=8", "berta=2147483647")
}

// testSharedWaits has a count wait for that of its organization's other mailbox, in the
// registry: another relay brings that one.
func testSharedWaits(h *harness) {
	a, b := h.org("a.com"), h.org("b.com")
	h.subscribe(a, kept("anna", 1))
	h.subscribe(a, kept("axel", 1))
	h.subscribe(b, reg("berta", 1))
	h.exchange("one", 1) // what comes from now on was not shown before
	now := h.exchangeAll(relay.ExchangeRequest{Relay: "one"}).Now
	d := h.exchange("one", 1, received(key(a, "anna"), 3, now), received(key(b, "berta"), 4, now))
	h.wantSum(d, 4, "anna pending 3", "axel", "berta=4")
	accepted := h.exchangeAll(relay.ExchangeRequest{Relay: "one", ShownFor: time.Hour, Due: 10, Devices: []relay.SharedUpdate{
		{DeviceKey: deviceKey(1), Accepted: d.Sequence}}})
	if d = accepted.Devices[0]; d.Outstanding() || len(accepted.Due) != 0 || d.DueAt().IsZero() {
		h.Fatalf("what waits is outstanding (%v), due (%v) or never due (%v)", d.Outstanding(), accepted.Due, d.DueAt())
	}
	h.wantSum(h.exchange("two", 1, received(key(a, "anna"), 5, now.Add(time.Microsecond))), 4, "anna pending 5", "axel", "berta=4")
	d = h.exchange("two", 1, received(key(a, "axel"), 2, now))
	h.wantSum(d, 11, "anna=5", "axel=2", "berta=4")
	if !d.Outstanding() || !d.DueAt().IsZero() {
		h.Errorf("the whole sum is not pushed (%v), or looked at later (%v)", d.Outstanding(), d.DueAt())
	}
	h.subscribe(a, kept("alma", 1)) // what is in the sum stays while another count waits
	h.wantSum(h.exchange("one", 1, received(key(a, "axel"), 9, h.exchangeAll(relay.ExchangeRequest{Relay: "one"}).Now)), 11,
		"alma", "anna=5", "axel=2 pending 9", "berta=4")
	h.wantSum(h.exchange("two", 1), 11, "alma", "anna=5", "axel=2 pending 9", "berta=4")
}

// testSharedTwice brings two updates of one device in one exchange, before and after it
// is shared: the first counts alone, and both answers say what it came to.
func testSharedTwice(h *harness) {
	a, b := h.org("a.com"), h.org("b.com")
	h.subscribe(a, reg("anna", 1))
	h.subscribe(b, reg("berta", 1))
	h.subscribe(a, reg("carla", 2))
	time.Sleep(2 * time.Millisecond) // what is stored is newer than the registration
	for n := range uint32(2) {
		update := func(phone int, mailbox string, count uint32) relay.SharedUpdate {
			return relay.SharedUpdate{DeviceKey: deviceKey(phone), Counts: []relay.ReceivedCount{received(key(a, mailbox), count, time.Now())}}
		}
		got := h.exchangeAll(relay.ExchangeRequest{Relay: "one", ShownFor: time.Hour, Devices: []relay.SharedUpdate{
			update(1, "anna", 3+n), update(2, "carla", 1), update(1, "anna", 9),
		}}).Devices
		h.wantSum(got[0], 3+n, fmt.Sprint("anna=", 3+n), "berta")
		h.wantSum(got[2], 3+n, fmt.Sprint("anna=", 3+n), "berta")
		if got[2].Sequence != got[0].Sequence || got[1].Shared {
			h.Errorf("the second update has sequence %d, want that of the first, %d; a device on one mailbox is shared: %v", got[2].Sequence, got[0].Sequence, got[1].Shared)
		}
	}
	h.wantSum(h.exchange("one", 1), 4, "anna=4", "berta")
}

// testSharedPusher has relays come, leave and fall silent.
func testSharedPusher(h *harness) {
	a, b := h.org("a.com"), h.org("b.com")
	h.subscribe(a, reg("anna", 1))
	h.subscribe(b, reg("berta", 1))
	time.Sleep(2 * time.Millisecond) // what is stored is newer than the registration
	as := func(name string, lifetime time.Duration) relay.SharedDevice {
		h.Helper()
		return h.exchangeAll(relay.ExchangeRequest{Relay: name, Lifetime: lifetime, ShownFor: time.Hour,
			Devices: []relay.SharedUpdate{{DeviceKey: deviceKey(1), Counts: []relay.ReceivedCount{received(key(a, "anna"), 3, time.Now())}, Accepted: 1 << 60}}}).Devices[0]
	}
	const long = time.Hour
	if d := as("one", long); d.Pusher != "one" || d.Outstanding() {
		h.Fatalf("the first pushes: %+v", d)
	}
	if d := as("two", long); d.Pusher != "one" {
		h.Fatalf("one was heard of: %+v", d)
	}
	before := as("one", long)
	h.exchangeAll(relay.ExchangeRequest{Relay: "one", Lifetime: long, Leave: true})
	d := as("two", long)
	if d.Pusher != "two" || d.Sequence != before.Sequence {
		h.Fatalf("one has left: %+v", d)
	}
	time.Sleep(2 * time.Millisecond)
	d = as("three", time.Millisecond)
	if d.Pusher != "three" || d.Sequence == before.Sequence {
		h.Fatalf("two was not heard of, and what it had in flight is not known: %+v", d)
	}
}

// testSumsChange has subscriptions and organizations go in every way.
func testSumsChange(h *harness) {
	ctx := h.Context()
	a, b := h.org("a.com"), h.org("b.com")
	sequence := func(n int) uint64 {
		h.Helper()
		result := h.exchangeAll(relay.ExchangeRequest{Relay: "one", Due: 100})
		for _, d := range result.Due {
			if d.DeviceKey == deviceKey(n) {
				return d.Sequence
			}
		}
		return 0
	}
	share := func(n int) {
		h.Helper()
		h.subscribe(a, reg("anna", n))
		h.subscribe(b, reg("berta", n))
		d := h.exchange("one", n, received(key(a, "anna"), 3, time.Now()), received(key(b, "berta"), 4, time.Now()))
		h.exchangeAll(relay.ExchangeRequest{Relay: "one", ShownFor: time.Hour, Devices: []relay.SharedUpdate{{DeviceKey: deviceKey(n), Accepted: d.Sequence}}})
		if sequence(n) != 0 {
			h.Fatal("a sum that was accepted is due")
		}
	}
	enable := func(enabled bool) func() error {
		return func() error { return h.update("b.com", enabled) }
	}
	for i, change := range []struct {
		name  string
		do    func() error
		sum   uint32
		parts []string
	}{
		{"unsubscribed", func() error { return h.Unsubscribe(ctx, b, reg("berta", 0)) }, 3, []string{"anna=3"}},
		{"removed", func() error {
			_, err := h.Remove(ctx, []relay.Removal{{Key: key(b, "berta"), App: testApp, Device: token(1), Reason: "Unregistered"}})
			return err
		}, 3, []string{"anna=3"}},
		{"moved", func() error { h.subscribe(b, reg("carla", 2)); return nil }, 3, []string{"anna=3", "carla"}},
		{"disabled", enable(false), 3, []string{"anna=3", "berta=4 disabled"}},
		{"removed with its organization", func() error {
			h.ok(h.update("b.com", true))
			h.exchange("one", 4)
			return h.RemoveOrganization(ctx, "b.com")
		}, 3, []string{"anna=3", "berta=4 disabled"}},
	} {
		share(i)
		h.ok(change.do())
		if sequence(i) == 0 {
			h.Errorf("%s: the device's sum is not due", change.name)
		}
		h.wantSum(h.exchange("one", i), change.sum, change.parts...)
		if i == 3 {
			h.ok(h.update("b.com", true))
		}
	}
}

// testSharedDevicesOf asks for the parts of a mailbox's devices, for operators and
// for one organization.
func testSharedDevicesOf(h *harness) {
	a, b := h.org("a.com"), h.org("b.com")
	for n := range 3 {
		h.subscribe(a, reg("anna", n))
	}
	h.subscribe(a, reg("other", 4))
	h.subscribe(b, reg("berta", 4))
	h.exchange("one", 4)
	of := func(k relay.MailboxKey) []relay.SharedDevice {
		h.Helper()
		devices, err := h.SharedDevicesOf(h.Context(), k)
		h.ok(err)
		return devices
	}
	if got := of(key(a, "anna")); len(got) != 0 {
		h.Fatalf("none of anna's devices is shared, got %+v", got)
	}
	for n := range 2 {
		h.subscribe(b, reg("berta", n))
		h.exchangeAll(relay.ExchangeRequest{Relay: "one", Lifetime: time.Hour, ShownFor: time.Hour, Devices: []relay.SharedUpdate{{
			DeviceKey: deviceKey(n), Counts: []relay.ReceivedCount{received(key(a, "anna"), 3, time.Now())}}}})
	}
	h.exchangeAll(relay.ExchangeRequest{Relay: "one", Lifetime: time.Hour, ShownFor: time.Hour, Devices: []relay.SharedUpdate{{
		DeviceKey: deviceKey(1), Accepted: 1 << 60}}})
	want := h.exchangeAll(relay.ExchangeRequest{Relay: "one", Lifetime: time.Hour, ShownFor: time.Hour, Devices: []relay.SharedUpdate{{
		DeviceKey: deviceKey(1), Counts: []relay.ReceivedCount{received(key(b, "berta"), 4, time.Now())}}}}).Devices[0]
	got := of(key(a, "anna"))
	if len(got) != 2 {
		h.Fatalf("%d of anna's devices are shared, want 2: %+v", len(got), got)
	}
	d := got[slices.IndexFunc(got, func(d relay.SharedDevice) bool { return d.DeviceKey == deviceKey(1) })]
	h.wantSum(d, 7, "anna=3", "berta=4")
	if d.Sequence != want.Sequence || d.Accepted != want.Accepted || d.Pusher != "one" || !d.Delivered(&d.Parts[0]) || d.Delivered(&d.Parts[1]) {
		h.Errorf("an operator sees %+v, want %+v", d, want)
	}
	alone := d.Own(a)
	if alone.Shared || alone.Sequence != 0 || alone.Pusher != "" || len(alone.Parts) != 1 || alone.Sum() != 3 || !alone.Delivered(&alone.Parts[0]) {
		h.Errorf("an organization sees of another's parts: %+v", alone)
	}
}

// testDueSums asks for what is due in parts.
func testDueSums(h *harness) {
	a, b := h.org("a.com"), h.org("b.com")
	for n := range 5 {
		h.subscribe(a, reg("anna", n))
		h.subscribe(b, reg("berta", n))
		h.exchange("one", n, received(key(a, "anna"), 3, time.Now()))
	}
	var got []relay.DueDevice
	for after, more := "", true; more; more = after != "" {
		result := h.exchangeAll(relay.ExchangeRequest{Relay: "two", Due: 2, After: after})
		got, after = append(got, result.Due...), result.Next
	}
	if len(got) != 5 {
		h.Fatalf("%d devices are due, want 5", len(got))
	}
	seen := map[relay.DeviceKey]bool{}
	for _, d := range got {
		if seen[d.DeviceKey] || d.Sequence == 0 {
			h.Errorf("%+v is due twice or never changed", d)
		}
		if !slices.Equal(d.Organizations, []relay.OrganizationID{a}) {
			h.Errorf("%+v is due for %v, want %d, which reported", d, d.Organizations, a)
		}
		seen[d.DeviceKey] = true
	}
	if due := h.exchangeAll(relay.ExchangeRequest{Relay: "two", Lifetime: time.Hour, Due: 9}).Due; len(due) != 5 {
		h.Errorf("%d devices are due at a relay whose pusher was never heard of, want 5", len(due))
	}
}

// testStray has a device become shared while a push of the process before may still be on
// its way: the sum is pushed once more after it, and once.
func testStray(h *harness) {
	org := h.org("a.com")
	for _, mailbox := range []string{"anna", "bert"} {
		r := reg(mailbox, 1)
		r.KeepOthers = true
		h.subscribe(org, r)
	}
	const stray = 50 * time.Second
	bring := func(stray time.Duration) relay.SharedDevice {
		return h.exchangeAll(relay.ExchangeRequest{Relay: "one", ShownFor: time.Hour, Stray: stray, Devices: []relay.SharedUpdate{{
			DeviceKey: deviceKey(1), Counts: []relay.ReceivedCount{received(key(org, "anna"), 1, time.Now()), received(key(org, "bert"), 2, time.Now())},
		}}}).Devices[0]
	}
	first := bring(stray)
	h.wantSum(first, 3, "anna=1", "bert=2")
	if first.PushAgainAt.IsZero() {
		h.Error("the sum is not pushed once more")
	}
	if again := bring(stray - time.Second); !again.PushAgainAt.Equal(first.PushAgainAt) {
		h.Errorf("it is pushed once more at %v, and then at %v", first.PushAgainAt, again.PushAgainAt)
	}
}

// testSharedLost has a relay know of exchanges that the registry has not: all are told, and
// the sum is pushed.
func testSharedLost(h *harness) {
	a, b := h.org("a.com"), h.org("b.com")
	h.subscribe(a, reg("anna", 1))
	h.subscribe(b, reg("berta", 1))
	bring := func(u relay.SharedUpdate) relay.SharedDevice {
		h.Helper()
		u.DeviceKey = deviceKey(1)
		return h.exchangeAll(relay.ExchangeRequest{Relay: "one", Lifetime: time.Hour, ShownFor: time.Hour, Devices: []relay.SharedUpdate{u}}).Devices[0]
	}
	d := bring(relay.SharedUpdate{Counts: []relay.ReceivedCount{received(key(a, "anna"), 3, time.Now())}})
	h.forget()
	d = bring(relay.SharedUpdate{Sequence: d.Sequence, Accepted: d.Sequence})
	h.told()
	known := d.Sequence + 5
	d = bring(relay.SharedUpdate{Sequence: known, Accepted: known})
	h.told("device_shared ")
	if h.wantSum(d, 3, "anna=3", "berta"); d.Sequence <= known || !d.Outstanding() {
		h.Errorf("sequence %d, outstanding %v; want a sum that is pushed with more than %d", d.Sequence, d.Outstanding(), known)
	}
	if d = bring(relay.SharedUpdate{Sequence: d.Sequence, Accepted: d.Sequence}); d.Outstanding() {
		h.Error("a sum that was accepted is outstanding")
	}
	h.told()
	// A count that came before it was found out is in no sum that was accepted.
	bring(relay.SharedUpdate{Counts: []relay.ReceivedCount{received(key(b, "berta"), 4, time.Now())}})
	known = d.Sequence + 5
	bring(relay.SharedUpdate{Sequence: known, Accepted: known})
	d = bring(relay.SharedUpdate{})
	for _, p := range d.Parts {
		if p.Key.Mailbox == "berta" && p.Sequence <= known {
			h.Errorf("berta's count has sequence %d, which counts as accepted; want one above %d", p.Sequence, known)
		}
	}
}

// testExchangesAtOnce has relays bring counts side by side; none is lost.
func testExchangesAtOnce(h *harness) {
	const relays, devices, rounds = 3, 6, 8
	orgs := []relay.OrganizationID{h.org("a.com"), h.org("b.com"), h.org("c.com")}
	for n := range devices {
		for _, org := range orgs {
			h.subscribe(org, reg("anna", n))
		}
	}
	var wg sync.WaitGroup
	for i := range relays {
		wg.Go(func() {
			for round := range rounds {
				x := relay.ExchangeRequest{Relay: fmt.Sprint("relay", i), Lifetime: time.Minute, ShownFor: time.Hour}
				for n := range devices {
					x.Devices = append(x.Devices, relay.SharedUpdate{DeviceKey: deviceKey((n + i) % devices),
						Counts: []relay.ReceivedCount{received(key(orgs[i], "anna"), uint32(round+1), time.Now())}})
				}
				if _, err := h.Exchange(h.Context(), x); err != nil {
					h.Errorf("relay %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	for n := range devices {
		d := h.exchange("last", n)
		h.wantSum(d, relays*rounds, "anna=8", "anna=8", "anna=8")
	}
}

// testExchangesClock has exchanges wait for each other: of a device, the later one has the
// later time, because times order what relays bring.
func testExchangesClock(h *harness) {
	const relays, devices, rounds = 4, 4, 40
	a, b := h.org("a.com"), h.org("b.com")
	x := relay.ExchangeRequest{Relay: "first"}
	for n := range devices {
		h.subscribe(a, reg("anna", n))
		h.subscribe(b, reg("berta", n))
		x.Devices = append(x.Devices, relay.SharedUpdate{DeviceKey: deviceKey(n)})
	}
	h.exchangeAll(x)
	var mu sync.Mutex
	times := map[relay.DeviceKey]map[uint64]time.Time{} // of the exchanges, by the sequence that they came to
	var wg sync.WaitGroup
	for i := range relays {
		wg.Go(func() {
			for round := range rounds {
				x := relay.ExchangeRequest{Relay: "one", ShownFor: time.Hour}
				for n := range devices {
					if n == i || (round+i)%2 == 0 { // some exchange one device, and others all of them
						x.Devices = append(x.Devices, relay.SharedUpdate{DeviceKey: deviceKey(n), Counts: []relay.ReceivedCount{
							{Key: key(a, "anna"), Count: uint32(relays*round + i + 1)}}})
					}
				}
				result, err := h.Exchange(h.Context(), x)
				if err != nil {
					h.Errorf("relay %d: %v", i, err)
					return
				}
				mu.Lock()
				for _, d := range result.Devices {
					if times[d.DeviceKey] == nil {
						times[d.DeviceKey] = map[uint64]time.Time{}
					}
					times[d.DeviceKey][d.Sequence] = result.Now
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for n := range devices {
		of, last := times[deviceKey(n)], time.Time{}
		for _, sequence := range slices.Sorted(maps.Keys(of)) {
			if of[sequence].Before(last) {
				h.Fatalf("of device %d the exchange to %d was %v before the one that it followed", n, sequence, last.Sub(of[sequence]))
			}
			last = of[sequence]
		}
	}
}

// update enables or disables an organization.
func (h *harness) update(name string, enabled bool) error {
	_, err := h.UpdateOrganization(h.Context(), name, registry.OrganizationUpdate{Enabled: &enabled})
	return err
}
