package registry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"badgerelay/relay"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// TestPostgresLossyFailover fails over to a standby that lacks the last
// registrations, as an asynchronous one may. What is lost is lost; each relay
// that was told of it ends, so that it starts again with what is there.
func TestPostgresLossyFailover(t *testing.T) {
	first := postgrestest.Start(t)
	name := first.Database()
	c := registry.PostgresConfig{URL: first.URL(name), PollInterval: 20 * time.Millisecond}
	writer := join(t, c, true)
	org := writer.org()
	subscribe(t, writer, org, 1)
	second := first.Follower()
	both := registry.PostgresConfig{URL: postgrestest.URL(name, first, second), PollInterval: c.PollInterval}
	told, ended := join(t, both, true), make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	go func() { ended <- told.Run(ctx) }() // ends with ctx
	startsAgain := joinThroughFailover(t, both)
	wantFailoverLoses(t, told, true)
	wantFailoverLoses(t, writer, false) // it knows of one server only

	// The last number that it gets of the sequence is 32 ahead of those used, so
	// that it does not seem to lack what comes while it is stopped.
	subscribe(t, writer, org, 2)
	eventually(t, "the standby follows", func() error {
		conn, err := pgx.Connect(t.Context(), second.URL(name))
		if err != nil {
			return err
		}
		defer conn.Close(t.Context())
		var at string
		return conn.QueryRow(t.Context(), `SELECT 'there' FROM subscriptions WHERE mailbox = $1`, []byte(numbered(0, 2).Mailbox)).Scan(&at)
	})
	second.Stop()
	for n := 3; n < 8; n++ {
		subscribe(t, writer, org, n)
	}
	lost := numbered(0, 7)
	told.learns("what will be lost", is(registry.ChangeSubscribed, lost.Mailbox))
	startsAgain.learns("what will be lost", is(registry.ChangeSubscribed, lost.Mailbox))
	first.Kill()
	second.Start()
	second.Promote()
	if err := <-ended; !errors.Is(err, registry.ErrChangesMissed) {
		t.Errorf("run: got %v, want ErrChangesMissed", err)
	}

	again := join(t, both, false)
	for n, want := range map[int]int{2: 1, 7: 0} {
		found, err := again.Lookup(t.Context(), []relay.MailboxKey{{Organization: org, Mailbox: numbered(0, n).Mailbox}})
		if err != nil || len(found[0]) != want {
			t.Errorf("found %v, %v of registration %d, want %d", found, err, n, want)
		}
	}
	subscribe(t, again, org, 9) // and it goes on
	again.learns("what comes then", is(registry.ChangeSubscribed, numbered(0, 9).Mailbox))
	startsAgain.until("saw what there is", func() bool {
		return startsAgain.live[numbered(0, 2).Mailbox] && startsAgain.live[numbered(0, 9).Mailbox] && !startsAgain.live[lost.Mailbox]
	})
}

func wantFailoverLoses(t *testing.T, r *replica, want bool) {
	t.Helper()
	if got, err := r.FailoverLoses(t.Context()); err != nil || got != want {
		t.Errorf("a failover loses acknowledged registrations: got %t, %v, want %t", got, err, want)
	}
}

// TestPostgresIdsGivenAgain has changes come under the ids of others that were
// told and are lost, more of them than were lost.
func TestPostgresIdsGivenAgain(t *testing.T) {
	server := postgrestest.Start(t)
	database := server.Database()
	a := join(t, registry.PostgresConfig{URL: server.URL(database)}, true)
	org := a.org()
	for n := range 5 {
		subscribe(t, a, org, n)
	}
	server.Exec(database, fmt.Sprintf(`DELETE FROM changes WHERE id > 3; ALTER SEQUENCE changes_id_seq RESTART WITH 4;
		INSERT INTO changes (made_at, data) SELECT %d, '{}' FROM generate_series(1, 20)`, time.Now().Add(time.Second).UnixMilli()))
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	if err := a.Run(ctx); !errors.Is(err, registry.ErrChangesMissed) {
		t.Errorf("run: got %v, want ErrChangesMissed", err)
	}
}
