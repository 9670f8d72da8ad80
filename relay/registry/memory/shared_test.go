package memory

import (
	"testing"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// TestClockSetBackAfterARelayWasKilled has the relays that are left take over from one that
// was killed before the database's clock was set back.
func TestClockSetBackAfterARelayWasKilled(t *testing.T) {
	now := time.Now()
	h := (&Database{Now: func() time.Time { return now }}).Open(Config{})
	defer func() { _ = h.Close() }() // the test is over
	device, err := apns.DeviceTokenFromBytes([]byte("01234567890123456789012345678901"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one.example", "two.example"} {
		o, err := h.AddOrganization(t.Context(), registry.NewOrganization{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Subscribe(t.Context(), o.ID, registry.Registration{Mailbox: "ann", App: "app", Device: device}); err != nil {
			t.Fatal(err)
		}
	}
	pusher := func(name string) string {
		t.Helper()
		result, err := h.Exchange(t.Context(), relay.ExchangeRequest{Relay: name, Lifetime: time.Minute,
			Devices: []relay.SharedUpdate{{DeviceKey: relay.DeviceKey{App: "app", Device: device}}}})
		if err != nil {
			t.Fatal(err)
		}
		return result.Devices[0].Pusher
	}
	pusher("killed")
	now = now.Add(-time.Hour)
	if got := pusher("lives"); got != "killed" {
		t.Errorf("%q pushes: the other relay may have been heard of just now", got)
	}
	now = now.Add(time.Minute)
	if got := pusher("lives"); got != "lives" {
		t.Errorf("%q pushes, of which nobody has heard for a minute", got)
	}
}
