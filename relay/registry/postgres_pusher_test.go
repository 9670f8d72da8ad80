package registry_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"badgerelay/relay"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// TestPostgresPusherIsHeardOfWhileAnotherWaits has a relay that was silent be heard of
// while another one, which is about to take its place, waits for the device's row.
// It goes on to push, and so the other must not.
func TestPostgresPusherIsHeardOfWhileAnotherWaits(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.URL(server.Database())
	r := openPostgres(t, registry.PostgresConfig{URL: url})
	one := numbered(0, 1)
	exchange := func(name string) (relay.ExchangeResult, error) {
		u := relay.SharedUpdate{DeviceKey: relay.DeviceKey{App: one.App, Device: one.Device}}
		return r.Exchange(t.Context(), relay.ExchangeRequest{Relay: name, Lifetime: time.Minute, Devices: []relay.SharedUpdate{u}})
	}
	for _, name := range []string{"one.example", "two.example"} {
		o, err := r.AddOrganization(t.Context(), registry.NewOrganization{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Subscribe(t.Context(), o.ID, one); err != nil {
			t.Fatal(err)
		}
	}
	if result, err := exchange("first"); err != nil || result.Devices[0].Pusher != "first" {
		t.Fatalf("%v, %+v; want the first relay to push", err, result.Devices)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }() // the test is over
	exec := func(statement string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	exec(`UPDATE pushers SET seen_at = seen_at - 120000000`) // it has been silent for two minutes
	exec(`BEGIN`)
	exec(`SELECT FROM shared_devices FOR UPDATE`) // its exchange is under way
	pusher := make(chan string, 1)
	go func() { // ends with the commit below
		result, err := exchange("second")
		if err != nil {
			pusher <- err.Error()
			return
		}
		pusher <- result.Devices[0].Pusher
	}()
	waits := 0
	for began := time.Now(); waits == 0 && time.Since(began) < testTimeout; time.Sleep(5 * time.Millisecond) { // a real server
		row := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted`)
		if err := row.Scan(&waits); err != nil {
			t.Fatal(err)
		}
	}
	exec(`UPDATE pushers SET seen_at = seen_at + 120000000`)
	exec(`COMMIT`)
	if got := <-pusher; got != "first" {
		t.Errorf("%q pushes, and the first relay believes that it does", got)
	}
}
