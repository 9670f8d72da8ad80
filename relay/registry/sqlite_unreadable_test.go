package registry

import (
	"slices"
	"testing"
	"time"

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
	exchange := func(x relay.Exchange) relay.ExchangeResult {
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
			{Key: relay.MailboxKey{Organization: org, Mailbox: "anna"}, Count: uint32(n), ReceivedAt: time.Now()}}})
	}
	exchange(relay.Exchange{Devices: updates})
	pragma(t, s, `UPDATE shared_devices SET refusal = x'7b' WHERE token = (SELECT min(token) FROM shared_devices)`)
	pragma(t, s, `UPDATE shared_devices SET token = x'01' WHERE token = (SELECT max(token) FROM shared_devices)`)

	var keys, due []relay.DeviceKey
	if err := s.SharedDevices(t.Context(), func(batch []relay.DeviceKey) error { keys = append(keys, batch...); return nil }); err != nil || len(keys) != 3 {
		t.Errorf("%d devices can be read, %v; want 3", len(keys), err)
	}
	for after, more := "", true; more; more = after != "" {
		result := exchange(relay.Exchange{Due: 1, After: after})
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
	for i, d := range exchange(relay.Exchange{Devices: updates[:3]}).Devices {
		if d.Sum() != uint32(i) {
			t.Errorf("the sum of device %d is %d", i, d.Sum())
		}
	}
	if got := unreadable(t, metrics); got == 0 {
		t.Error("nothing is counted")
	}
	before := unreadable(t, metrics)
	exchange(relay.Exchange{Devices: updates[:3]})
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
