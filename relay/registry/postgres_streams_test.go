package registry_test

import (
	"fmt"
	"testing"
	"time"

	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// TestPostgresTellsOfStreams has one relay tell the others of streams that
// agents have opened, and of changes at the same time.
func TestPostgresTellsOfStreams(t *testing.T) {
	server := postgrestest.Start(t)
	database := server.Database()
	c := registry.PostgresConfig{URL: server.URL(database), PollInterval: time.Hour}
	a, b := join(t, c, false), join(t, c, false)
	const n = 500
	heard := make(chan registry.StreamOpened, n)
	cancel := b.OnStreamOpened(func(s registry.StreamOpened) { heard <- s })
	org := a.org()
	b.learns("the organization, so it listens", func(c registry.Change) bool { return c.Organization == org })
	server.Exec(database, "SELECT pg_notify('badgerelay_streams', 'what nobody can read')")
	want := map[registry.StreamOpened]bool{}
	for i := range n {
		s := registry.StreamOpened{Organization: org, Instance: fmt.Sprintf("mx%d \"ü\x00", i), Number: 1<<63 + uint64(i)}
		want[s] = true
		a.StreamOpened(s)
	}
	subscribe(t, a, org, 1)
	timeout := time.After(patience)
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
	a.StreamOpened(registry.StreamOpened{Organization: org, Instance: "mx", Number: 1})
	subscribe(t, a, org, 2)
	b.learns("another", is(registry.ChangeSubscribed, numbered(0, 2).Mailbox))
	if len(heard) > 0 {
		t.Error("heard of a stream after it had stopped to listen")
	}
}
