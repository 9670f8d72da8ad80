package registry

import (
	"slices"
	"testing"

	"badgerelay/relay"
)

// TestWaitsEnd has a count wait for one that never comes: after a minute a relay that
// asks what is due is told, and finds it in the sum.
func TestWaitsEnd(t *testing.T) {
	s := open(t, SQLiteConfig{Path: newPath(t)})
	org := addOrg(t, s)
	r := registration(1)
	for _, r.Mailbox = range []string{"anna", "berta"} {
		r.KeepOthers = true
		if _, err := s.Subscribe(t.Context(), org, r); err != nil {
			t.Fatal(err)
		}
	}
	device := relay.DeviceKey{App: r.App, Device: r.Device}
	exchange := func(update relay.SharedUpdate) relay.ExchangeResult {
		t.Helper()
		update.DeviceKey = device
		result, err := s.Exchange(t.Context(), relay.ExchangeRequest{Relay: "one", Due: 10, Devices: []relay.SharedUpdate{update}})
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	now := exchange(relay.SharedUpdate{}).Now // what comes from now on was not shown before
	counts := []relay.ReceivedCount{{Key: relay.MailboxKey{Organization: org, Mailbox: "anna"}, Count: 3, ReceivedAt: now}}
	if result := exchange(relay.SharedUpdate{Counts: counts}); result.Devices[0].Sum() != 0 || len(result.Due) != 0 {
		t.Fatalf("sum %d, due %v: berta is not waited for", result.Devices[0].Sum(), result.Due)
	}
	pragma(t, s, `UPDATE shared_parts SET joined_at = joined_at - 61000000`)
	pragma(t, s, `UPDATE shared_devices SET due_at = due_at - 61000000`)
	result, err := s.Exchange(t.Context(), relay.ExchangeRequest{Relay: "one", Due: 10})
	if err != nil || len(result.Due) != 1 || result.Due[0].DeviceKey != device || !slices.Equal(result.Due[0].Organizations, []relay.OrganizationID{org}) {
		t.Fatalf("due is %+v, %v; want the device, for its organization", result.Due, err)
	}
	if d := exchange(relay.SharedUpdate{}).Devices[0]; d.Sum() != 3 || !d.Outstanding() {
		t.Errorf("sum %d, outstanding %v; want 3, to be pushed", d.Sum(), d.Outstanding())
	}
}
