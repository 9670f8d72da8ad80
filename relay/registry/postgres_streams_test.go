package registry_test

import (
	"fmt"
	"testing"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// TestPostgresTellsOfStreams has one relay tell the others of streams that
// agents opened, and of changes at the same time.
func TestPostgresTellsOfStreams(t *testing.T) {
	server := postgrestest.Start(t)
	database := server.Database()
	c := registry.PostgresConfig{URL: server.URL(database), PollInterval: time.Hour}
	a, b := join(t, c, false), join(t, c, false)
	const n = 500
	heard := make(chan registry.StreamChange, n)
	cancel := b.OnStreamChanged(func(s registry.StreamChange) { heard <- s })
	org := a.org()
	b.learns("the organization, so it listens", func(c registry.Change) bool { return c.Organization == org })
	server.Exec(database, "SELECT pg_notify('badgerelay_streams', 'what nobody can read')")
	want := map[registry.StreamChange]bool{}
	for i := range n {
		s := registry.StreamChange{
			Relay: "one", State: registry.StreamActive, Organization: org, AgentID: "mx", Instance: fmt.Sprintf("%d \"ü\x00", i), Number: 1<<63 + uint64(i),
		}
		want[s] = true
		a.StreamChanged(s)
	}
	subscribe(t, a, org, 1)
	timeout := time.After(testTimeout)
	for len(want) > 0 {
		select {
		case s := <-heard:
			if !want[s] {
				t.Fatalf("heard of %+v, which nobody told", s)
			}
			delete(want, s)
		case <-timeout:
			t.Fatalf("never heard of %d streams", len(want))
		}
	}
	b.learns("the subscription", is(registry.ChangeSubscribed, numbered(0, 1).Mailbox))
	cancel()
	a.StreamChanged(registry.StreamChange{Organization: org, AgentID: "mx", Instance: "1", Number: 1})
	subscribe(t, a, org, 2)
	b.learns("another", is(registry.ChangeSubscribed, numbered(0, 2).Mailbox))
	if len(heard) > 0 {
		t.Error("heard of a stream after it had stopped to listen")
	}
}

// TestPostgresHintsOfSums has one relay store a count for another one's push.
func TestPostgresHintsOfSums(t *testing.T) {
	server := postgrestest.Start(t)
	c := registry.PostgresConfig{URL: server.URL(server.Database()), PollInterval: time.Hour}
	a, b := join(t, c, false), join(t, c, false)
	heard := make(chan struct{}, 100)
	a.OnSumsChanged(func() { heard <- struct{}{} })
	orgs := []relay.OrganizationID{a.org()}
	other, err := a.AddOrganization(t.Context(), registry.NewOrganization{Name: "other.example"})
	if err != nil {
		t.Fatal(err)
	}
	orgs = append(orgs, other.ID)
	one := numbered(0, 1)
	for _, org := range orgs {
		if _, err := a.Subscribe(t.Context(), org, one); err != nil {
			t.Fatal(err)
		}
	}
	exchange := func(r registry.Registry, name string, org relay.OrganizationID, count uint32) {
		t.Helper()
		u := relay.SharedUpdate{DeviceKey: relay.DeviceKey{App: one.App, Device: one.Device}}
		u.Counts = []relay.ReceivedCount{{Key: relay.MailboxKey{Organization: org, Mailbox: one.Mailbox}, Count: count, ReceivedAt: time.Now()}}
		if _, err := r.Exchange(t.Context(), relay.ExchangeRequest{Relay: name, Lifetime: time.Minute, Devices: []relay.SharedUpdate{u}}); err != nil {
			t.Fatal(err)
		}
	}
	exchange(a, "a", orgs[0], 1)
	b.learns("that the device is shared", func(c registry.Change) bool {
		return c.Kind == registry.ChangeDeviceShared && c.App == one.App && c.Device == one.Device
	})
	exchange(b, "b", orgs[1], 2)
	select {
	case <-heard:
	case <-time.After(testTimeout):
		t.Error("the relay that pushes got no hint")
	}
}
