package registry_test

import (
	"context"
	"testing"
	"time"

	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
	"badgerelay/relay/registry/registrytest"
)

// TestPostgresInquiries has relays ask each other, and leaves nothing of it.
func TestPostgresInquiries(t *testing.T) {
	server := postgrestest.Start(t)
	database := server.Database()
	server.Exec(database, "ALTER DATABASE "+database+" SET client_encoding = 'LATIN1'") // is not that of the relays
	c := registry.PostgresConfig{URL: server.URL(database), PollInterval: time.Hour}
	var relays [3]registrytest.Inquirer
	registrytest.RunInquiries(t, func(t *testing.T) [3]registrytest.Inquirer {
		first := join(t, c, false)
		joined := []*replica{first, join(t, c, false), join(t, c, false)}
		org := first.org()
		for i, r := range joined {
			r.learns("the organization, so it listens", func(c registry.Change) bool { return c.Organization == org })
			relays[i] = r
		}
		return relays
	})
	// What nobody took, because who asked was ended or did not wait for it.
	const old = `INSERT INTO inquiry_answers SELECT 'old', 'gone:1', (extract(epoch FROM clock_timestamp()) * 1000)::bigint - 61000, ''`
	const left = `DO $$ BEGIN IF EXISTS (SELECT 1 FROM inquiry_answers WHERE inquiry = 'old') THEN RAISE EXCEPTION 'it is left'; END IF; END $$`
	server.Exec(database, old)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := relays[0].Inquire(ctx, registry.Inquiry{Relay: "a", Mailbox: "日"}, func(answers map[string][]byte) bool {
		return answers["b:1"] != nil
	}); err != nil {
		t.Error(err)
	}
	server.Exec(database, left) // it went with the next answer
}
