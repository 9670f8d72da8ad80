package registry_test

import (
	"testing"
	"time"

	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

func TestPresences(t *testing.T) {
	server := postgrestest.Start(t)
	name := server.Database()
	p := openPostgres(t, registry.PostgresConfig{URL: server.URL(name)})
	ctx, began := t.Context(), time.Now().Truncate(time.Millisecond).UTC()
	announce := func(one registry.Presence) {
		t.Helper()
		if err := p.Announce(ctx, one); err != nil {
			t.Fatal(err)
		}
	}
	wants := func(want ...registry.Presence) {
		t.Helper()
		all, err := p.Presences(ctx)
		if err != nil || len(all) != len(want) {
			t.Fatalf("got %v, %v, want %v", all, err, want)
		}
		for i, got := range all {
			w := want[i]
			if got.Name != w.Name || !got.StartedAt.Equal(w.StartedAt) || got.Stopped != w.Stopped || string(got.Status) != string(w.Status) {
				t.Errorf("got %v, want %v", got, w)
			}
			if got.Silence < w.Silence || got.Silence > w.Silence+testTimeout {
				t.Errorf("%s was heard %v ago, want %v", got.Name, got.Silence, w.Silence)
			}
		}
	}
	b := registry.Presence{Name: "b:1", StartedAt: began, Status: []byte("\x00b")}
	a := registry.Presence{Name: "a:1", StartedAt: began, Status: []byte("a")}
	announce(b)
	announce(a)
	wants(a, b)
	server.Exec(name, "UPDATE relays SET seen_at = seen_at - 3600000 WHERE name = 'b:1'")
	b.Silence = time.Hour
	wants(a, b)
	a.Stopped, a.Status = true, []byte("last")
	announce(a)
	wants(a, b)

	next := registry.Presence{Name: "a:1", StartedAt: began.Add(-time.Minute), Status: []byte("next")} // on a clock that was put back
	announce(next)
	wants(next, b)
	announce(a) // the end of the one before, late
	wants(next, b)

	server.Exec(name, "UPDATE relays SET seen_at = seen_at - 86400001 WHERE name = 'b:1'")
	wants(next)
}
