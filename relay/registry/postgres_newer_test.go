package registry_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"badgerelay/auth/authtest"
	"badgerelay/relay"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// expansion is what a migration of the next version may do while relays of this
// one go on: whatever they neither read nor write, or what has a default.
const expansion = `
ALTER TABLE organizations ADD COLUMN later text NOT NULL DEFAULT 'x';
ALTER TABLE credentials ADD COLUMN later bigint;
ALTER TABLE removed_credentials ADD COLUMN later bigint;
ALTER TABLE subscriptions ADD COLUMN later text NOT NULL DEFAULT 'x';
ALTER TABLE removed_subscriptions ADD COLUMN later text NOT NULL DEFAULT 'x';
ALTER TABLE changes ADD COLUMN later bigint;
CREATE TABLE later (id bigint PRIMARY KEY, organization_id bigint NOT NULL REFERENCES organizations (id) ON DELETE CASCADE);
CREATE INDEX subscriptions_later ON subscriptions (later);
INSERT INTO goose_db_version (version_id, is_applied) VALUES (1000, true);
`

// TestPostgresOnANewerSchema has the next version's program bring the tables up
// to date under a relay of this one: it goes on, and one more of this one
// starts, as when an upgrade is taken back.
func TestPostgresOnANewerSchema(t *testing.T) {
	server := postgrestest.Start(t)
	database := server.Database()
	c := registry.PostgresConfig{URL: server.URL(database)}
	before := join(t, c, false)
	org := before.org()
	subscribe(t, before, org, 1)
	server.Exec(database, expansion)
	after := join(t, c, false)
	useEverything(t, before, "before.com", after)
	useEverything(t, after, "after.com", before)
}

// TestPostgresRefusesWhatItDoesNotUnderstand has a migration say that programs
// of this version can't work with it.
func TestPostgresRefusesWhatItDoesNotUnderstand(t *testing.T) {
	server := postgrestest.Start(t)
	database := server.Database()
	c := registry.PostgresConfig{URL: server.URL(database)}
	openPostgres(t, c)
	server.Exec(database, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (1000, true), (1001, true); UPDATE schema_compatibility SET oldest = 1000`)
	_, err := registry.OpenPostgres(t.Context(), c)
	if !errors.Is(err, registry.ErrNewerSchema) {
		t.Fatalf("got %v, want ErrNewerSchema", err)
	}
	for _, part := range []string{"schema is version 1001", "know version 1000", "this one knows "} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
}

// useEverything reads and writes every table, and has another relay hear of it.
func useEverything(t *testing.T, r *replica, name string, other *replica) {
	t.Helper()
	ctx := t.Context()
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	o, err := r.AddOrganization(ctx, registry.NewOrganization{Name: name, Limits: registry.Limits{MaxMailboxes: 10}})
	check("add organization", err)
	credential, err := r.AddCredential(ctx, o.ID, registry.NewCredential{Certificate: authtest.NewKey(name, time.Now()).Certificate.Raw})
	check("add credential", err)
	found, err := r.CredentialsByX5T(ctx, credential.X5T)
	check("find credential", err)
	if len(found) != 1 {
		t.Errorf("found %d credentials, want 1", len(found))
	}
	check("remove credential", r.RemoveCredential(ctx, o.ID, credential.ID))
	_, err = r.ImportSubscriptions(ctx, o.ID, []registry.Registration{numbered(0, 1), numbered(0, 2), numbered(0, 3)})
	check("import", err)
	check("unsubscribe", r.Unsubscribe(ctx, o.ID, numbered(0, 1)))
	gone := numbered(0, 2)
	removed, err := r.Remove(ctx, []relay.Removal{{Key: relay.MailboxKey{Organization: o.ID, Mailbox: gone.Mailbox}, App: gone.App, Device: gone.Device, Reason: "Unregistered"}})
	check("remove", err)
	if len(removed) != 1 || !removed[0] {
		t.Errorf("removed %v, want it done", removed)
	}
	for _, f := range []registry.SubscriptionFilter{{Organization: o.ID}, {Organization: o.ID, Removed: true}} {
		page, _, err := r.ListSubscriptions(ctx, f, registry.Page{})
		check("list", err)
		if len(page) != 1 {
			t.Errorf("%d subscriptions (removed: %t), want 1", len(page), f.Removed)
		}
	}
	rows := 0
	check("scan", r.Scan(ctx, func(batch []registry.Entry) error { rows += len(batch); return nil }))
	if rows == 0 {
		t.Error("scanned nothing")
	}
	other.learns("the import", func(c registry.Change) bool { return c.Organization == o.ID && c.Mailbox == numbered(0, 3).Mailbox })
	check("remove organization", r.RemoveOrganization(ctx, name))
	other.learns("the end", func(c registry.Change) bool {
		return c.Organization == o.ID && c.Kind == registry.ChangeOrganizationRemoved
	})
}
