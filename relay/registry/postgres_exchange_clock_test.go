package registry_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"badgerelay/relay"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// TestPostgresCountStaysThatIsNewerThanOneWhoseExchangeWaits has an exchange with an old
// count wait for another device's row, while the agent is at another relay and that one
// stores a newer count.
func TestPostgresCountStaysThatIsNewerThanOneWhoseExchangeWaits(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.URL(server.Database())
	r := openPostgres(t, registry.PostgresConfig{URL: url})
	held, free := numbered(0, 1), numbered(0, 2)
	if held.Device.Hex() > free.Device.Hex() { // rows are locked by token
		held, free = free, held
	}
	org := shareBetweenTwo(t, r, held, free)
	update := func(d registry.Registration, c ...relay.ReceivedCount) relay.SharedUpdate {
		return relay.SharedUpdate{DeviceKey: relay.DeviceKey{App: d.App, Device: d.Device}, Counts: c}
	}
	exchange := func(name string, devices ...relay.SharedUpdate) relay.ExchangeResult {
		result, err := r.Exchange(t.Context(), relay.ExchangeRequest{Relay: name, Lifetime: time.Minute, ShownFor: time.Hour, Devices: devices})
		if err != nil {
			t.Error(err)
		}
		return result
	}
	count := func(n uint32) relay.ReceivedCount {
		return relay.ReceivedCount{Key: relay.MailboxKey{Organization: org, Mailbox: free.Mailbox}, Count: n, ReceivedAt: exchange("any").Now}
	}
	exchange("first", update(held), update(free))
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }() // the test is over
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`BEGIN`)
	exec(`SELECT FROM shared_devices WHERE token = $1 FOR UPDATE`, held.Device.AppendRaw(nil))
	older := count(3)
	done := make(chan struct{})
	go func() { // ends with the commit below
		exchange("second", update(held), update(free, older))
		close(done)
	}()
	waits := 0
	for began := time.Now(); waits == 0 && time.Since(began) < testTimeout; time.Sleep(5 * time.Millisecond) { // a real server
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted`).Scan(&waits); err != nil {
			t.Fatal(err)
		}
	}
	if d := exchange("first", update(free, count(5))).Devices[0]; d.Sum() != 5 {
		t.Fatalf("the sum is %d, want the newer count's 5", d.Sum())
	}
	exec(`COMMIT`)
	<-done
	if d := exchange("first", update(free)).Devices[0]; d.Sum() != 5 {
		t.Errorf("the sum is %d, want 5: an older count took the newer one's place", d.Sum())
	}
}

// TestPostgresClockSetBackAfterARelayWasKilled has the relays that are left take over from
// one that was killed before the database's clock was set back.
func TestPostgresClockSetBackAfterARelayWasKilled(t *testing.T) {
	server := postgrestest.Start(t)
	name := server.Database()
	r := openPostgres(t, registry.PostgresConfig{URL: server.URL(name)})
	one := numbered(0, 1)
	key := relay.MailboxKey{Organization: shareBetweenTwo(t, r, one), Mailbox: one.Mailbox}
	exchange := func(name string) relay.ExchangeResult {
		t.Helper()
		u := relay.SharedUpdate{DeviceKey: relay.DeviceKey{App: one.App, Device: one.Device}, Counts: []relay.ReceivedCount{{Key: key, Count: 3}}}
		result, err := r.Exchange(t.Context(), relay.ExchangeRequest{Relay: name, Lifetime: time.Minute, ShownFor: time.Hour, Due: 10,
			Devices: []relay.SharedUpdate{u}})
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	exchange("killed")
	server.Exec(name, `UPDATE pushers SET seen_at = seen_at + 3600000000`) // as to a clock that was set back an hour
	result := exchange("lives")
	if result.Devices[0].Pusher != "killed" || len(result.Due) != 0 {
		t.Errorf("%q pushes, and %d are due: the other relay may have been heard of just now", result.Devices[0].Pusher, len(result.Due))
	}
	server.Exec(name, `UPDATE pushers SET seen_at = seen_at - 60000000 WHERE name = 'killed'`) // a minute later
	result = exchange("lives")
	if result.Devices[0].Pusher != "lives" || len(result.Due) != 1 {
		t.Errorf("%q pushes, and %d are due; want the relay that lives to push: nobody has heard of the other for a minute", result.Devices[0].Pusher, len(result.Due))
	}
}

// shareBetweenTwo puts devices on mailboxes of two organizations, and returns the first.
func shareBetweenTwo(t *testing.T, r registry.Registry, devices ...registry.Registration) (first relay.OrganizationID) {
	t.Helper()
	for _, name := range []string{"one.example", "two.example"} {
		o, err := r.AddOrganization(t.Context(), registry.NewOrganization{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range devices {
			if _, err := r.Subscribe(t.Context(), o.ID, d); err != nil {
				t.Fatal(err)
			}
		}
		if first == 0 {
			first = o.ID
		}
	}
	return first
}
