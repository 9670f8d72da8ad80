package registry

import (
	"slices"
	"testing"
	"time"

	"badgerelay/apns"
	"badgerelay/auth/authtest"
	"badgerelay/relay"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// TestUnreadableSharedDevices has rows of shared devices that can't be read. They
// hold up no other device.
func TestUnreadableSharedDevices(t *testing.T) {
	metrics := prometheus.NewRegistry()
	s := open(t, SQLiteConfig{Path: newPath(t), Registerer: metrics})
	org := addOrg(t, s)
	exchange := func(x relay.ExchangeRequest) relay.ExchangeResult {
		t.Helper()
		x.Relay = "one"
		result, err := s.Exchange(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	var updates []relay.SharedUpdate
	for n := range 4 {
		r := registration(n)
		for _, r.Mailbox = range []string{"anna", "berta"} {
			r.KeepOthers = true
			if _, err := s.Subscribe(t.Context(), org, r); err != nil {
				t.Fatal(err)
			}
		}
		updates = append(updates, relay.SharedUpdate{DeviceKey: relay.DeviceKey{App: r.App, Device: r.Device}, Counts: []relay.ReceivedCount{
			{Key: relay.MailboxKey{Organization: org, Mailbox: "anna"}, Count: uint32(n), ReceivedAt: time.Now()},
			{Key: relay.MailboxKey{Organization: org, Mailbox: "berta"}, ReceivedAt: time.Now()}}})
	}
	exchange(relay.ExchangeRequest{Devices: updates})
	pragma(t, s, `UPDATE shared_devices SET refusal = x'7b' WHERE token = (SELECT min(token) FROM shared_devices)`)
	pragma(t, s, `UPDATE shared_devices SET token = x'01' WHERE token = (SELECT max(token) FROM shared_devices)`)

	var keys, due []relay.DeviceKey
	if err := s.SharedDevices(t.Context(), func(batch []relay.DeviceKey) error { keys = append(keys, batch...); return nil }); err != nil || len(keys) != 3 {
		t.Errorf("%d devices can be read, %v; want 3", len(keys), err)
	}
	for after, more := "", true; more; more = after != "" {
		result := exchange(relay.ExchangeRequest{Due: 1, After: after})
		for _, d := range result.Due {
			due = append(due, d.DeviceKey)
		}
		after = result.Next
	}
	if len(due) != 3 || !slices.Contains(due, updates[2].DeviceKey) {
		t.Errorf("%d devices are due, want 3: %v", len(due), due)
	}
	if devices, err := s.SharedDevicesOf(t.Context(), relay.MailboxKey{Organization: org, Mailbox: "anna"}); err != nil || len(devices) != 3 {
		t.Errorf("anna has %d devices that can be read, %v; want 3", len(devices), err)
	}
	for i, d := range exchange(relay.ExchangeRequest{Devices: updates[:3]}).Devices {
		if d.Sum() != uint32(i) {
			t.Errorf("the sum of device %d is %d", i, d.Sum())
		}
	}
	if got := unreadable(t, metrics); got == 0 {
		t.Error("nothing is counted")
	}
	before := unreadable(t, metrics)
	exchange(relay.ExchangeRequest{Devices: updates[:3]})
	if unreadable(t, metrics) != before {
		t.Error("a device that was exchanged is not readable yet")
	}
}

func unreadable(t *testing.T, g prometheus.Gatherer) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == "registry_unreadable_rows_total" })
	return families[i].Metric[0].Counter.GetValue()
}

// TestUnreadableSubscriptions has a subscription without a token and one whose
// quarantine can't be read. The first is passed over, and the other gets its badges.
func TestUnreadableSubscriptions(t *testing.T) {
	s := open(t, SQLiteConfig{Path: newPath(t)})
	org := addOrg(t, s)
	for n := range 4 {
		r := registration(n)
		r.Mailbox = "anna"
		if _, err := s.Subscribe(t.Context(), org, r); err != nil {
			t.Fatal(err)
		}
	}
	pragma(t, s, `UPDATE subscriptions SET quarantine = x'7b' WHERE token = (SELECT max(token) FROM subscriptions)`)
	pragma(t, s, `UPDATE subscriptions SET token = x'01' WHERE token = (SELECT min(token) FROM subscriptions)`)

	key := relay.MailboxKey{Organization: org, Mailbox: "anna"}
	found, err := s.Lookup(t.Context(), []relay.MailboxKey{key})
	if err != nil || len(found[0]) != 3 {
		t.Fatalf("a look-up finds %v, %v; want the three that can be read", found, err)
	}
	scanned := 0
	if err := s.Scan(t.Context(), func(batch []Entry) error { scanned += len(batch); return nil }); err != nil || scanned != 3 {
		t.Errorf("%d are read at the start, %v; want 3", scanned, err)
	}
	listed, token := 0, ""
	for pages := 1; ; pages++ {
		subs, next, err := s.ListSubscriptions(t.Context(), SubscriptionFilter{Organization: org}, Page{Size: 1, Token: token})
		if err != nil || pages > 4 {
			t.Fatalf("page %d: %v", pages, err)
		}
		if listed, token = listed+len(subs), next; next == "" {
			break
		}
	}
	if listed != 3 {
		t.Errorf("%d are listed, want 3", listed)
	}
	refused := relay.Refusal{Key: key, App: found[0][2].App, Device: found[0][2].Device, Reason: apns.ReasonUnregistered,
		GoneSince: time.Now().Add(time.Hour), SentAt: time.Now(), Registered: found[0][2].RegisteredAt}
	if _, err := s.Refuse(t.Context(), []relay.Refusal{refused}); err != nil {
		t.Errorf("refuse: %v", err)
	}
}

// TestUnreadableCredential has one of two credentials damaged. The other is found,
// and the damaged one can be removed.
func TestUnreadableCredential(t *testing.T) {
	s := open(t, SQLiteConfig{Path: newPath(t)})
	org := addOrg(t, s)
	var ids []string
	for _, name := range []string{"one", "two"} {
		c, err := s.AddCredential(t.Context(), org, NewCredential{Certificate: authtest.NewKey(name, time.Now()).Certificate.Raw})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, c.ID)
	}
	pragma(t, s, `UPDATE credentials SET certificate = x'30' WHERE id = '`+ids[0]+`'`)
	if cs, err := s.ListCredentials(t.Context(), org); err != nil || len(cs) != 1 || cs[0].ID != ids[1] {
		t.Errorf("list: %v, %v; want the one that can be read", cs, err)
	}
	if err := s.RemoveCredential(t.Context(), org, ids[0]); err != nil {
		t.Errorf("remove: %v", err)
	}
}

// TestUnreadableRowsBeforeOthers has more rows that can't be read than are looked at
// in one go, before one that can. Its lifetime ends all the same, and it is restored.
func TestUnreadableRowsBeforeOthers(t *testing.T) {
	s := open(t, SQLiteConfig{Path: newPath(t), SubscriptionLifetime: 24 * time.Hour})
	org := addOrg(t, s)
	r := registration(1)
	r.Mailbox = "zoe"
	if _, err := s.Subscribe(t.Context(), org, r); err != nil {
		t.Fatal(err)
	}
	const damaged = `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1001) INSERT INTO `
	pragma(t, s, damaged+`subscriptions (organization_id, mailbox, app, token, created_at, registered_at)
		SELECT organization_id, CAST(format('%04d', i) AS BLOB), app, x'01', created_at, registered_at FROM n, subscriptions WHERE mailbox = CAST('zoe' AS BLOB)`)
	pragma(t, s, `UPDATE subscriptions SET registered_at = 1`)
	if err := s.purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	removed := SubscriptionFilter{Organization: org, Removed: true}
	if subs, _, err := s.ListSubscriptions(t.Context(), removed, Page{}); err != nil || len(subs) != 1 || subs[0].Mailbox != "zoe" {
		t.Fatalf("ended are %v, %v; want zoe", subs, err)
	}
	pragma(t, s, damaged+`removed_subscriptions (organization_id, mailbox, app, token, device, created_at, registered_at, removed_at, reason, superseded)
		SELECT organization_id, CAST(format('%04d', i) AS BLOB), app, x'01', device, created_at, registered_at, removed_at, reason, superseded
		FROM n, removed_subscriptions WHERE mailbox = CAST('zoe' AS BLOB)`)
	if subs, next, err := s.ListSubscriptions(t.Context(), removed, Page{Size: 10}); err != nil || len(subs) != 1 || next != "" {
		t.Errorf("listed are %v, next %q, %v; want zoe on the first page", subs, next, err)
	}
	var restored []Restoration
	err := s.Restore(t.Context(), RestoreRequest{}, func(part []Restoration) error { restored = append(restored, part...); return nil })
	if err != nil || len(restored) != 1 || restored[0].Subscription.Mailbox != "zoe" {
		t.Errorf("restored are %v, %v; want zoe", restored, err)
	}
}
