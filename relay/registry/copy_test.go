package registry_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// TestCopy copies a file into PostgreSQL, in two parts, and finds everything
// there.
func TestCopy(t *testing.T) {
	server := postgrestest.Start(t)
	from := openFile(t, filepath.Join(t.TempDir(), "registry.db"))
	org := fillSource(t, from)
	to := openPostgres(t, registry.PostgresConfig{URL: server.URL(server.Database())})

	ctx, cancel := context.WithCancel(t.Context())
	err := registry.Copy(ctx, from, to, func(c registry.Copied) {
		if c.Table == "credentials" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted copy: got %v", err)
	}
	for _, again := range []bool{false, true} {
		copied := make(map[string]registry.Copied)
		if err := registry.Copy(t.Context(), from, to, func(c registry.Copied) { copied[c.Table] = c }); err != nil {
			t.Fatal(err)
		}
		if c := copied["subscriptions"]; c.Rows != 12006 || (c.New == 0) != again {
			t.Errorf("again %t: got %+v, want 12006 rows", again, c)
		}
		if copied["organizations"].New != 0 || copied["removed_subscriptions"].Rows != 1 {
			t.Errorf("again %t: got %+v", again, copied)
		}
	}
	wantSame(t, from, to, org)
	o, err := to.AddOrganization(t.Context(), registry.NewOrganization{Name: "new.com"})
	if err != nil || o.ID != org+2 {
		t.Errorf("got %+v, %v, want an id that no organization ever had", o, err)
	}
	if err := registry.Copy(t.Context(), from, to, func(registry.Copied) {}); !errors.Is(err, registry.ErrCopyDiffers) {
		t.Errorf("into a registry that is in use: got %v, want ErrCopyDiffers", err)
	}
	if err := errors.Join(to.RemoveOrganization(t.Context(), "new.com"), to.PurgeOrganization(t.Context(), "new.com")); err != nil {
		t.Fatal(err)
	}
	if err := to.Unsubscribe(t.Context(), org, numbered(0, 7)); err != nil {
		t.Fatal(err)
	}
	if err := registry.Copy(t.Context(), from, to, func(registry.Copied) {}); !errors.Is(err, registry.ErrCopyDiffers) {
		t.Errorf("into a registry that lost a row: got %v, want ErrCopyDiffers", err)
	}
}

// sharedMailbox is one of a shared device's that fillSource makes.
const sharedMailbox = "shared"

// fillSource makes an organization with odd mailboxes and a shared device, and one that
// was removed.
func fillSource(t *testing.T, r registry.Registry) relay.OrganizationID {
	t.Helper()
	ctx := t.Context()
	o, err := r.AddOrganization(ctx, registry.NewOrganization{Name: "fabrikam.com", MetadataURL: "https://fabrikam.com/x",
		Limits: registry.Limits{Apps: []string{"com.example.mail", "a\u200bb"}, MaxSubscriptions: 20000}})
	if err != nil {
		t.Fatal(err)
	}
	rs := many(12000)
	for i, mailbox := range []string{"a\u200bb", "ä", "日本", "'", "\uffff"} {
		odd := numbered(1, i)
		odd.Mailbox = mailbox
		rs = append(rs, odd)
	}
	shared := rs[len(rs)-1]
	gone := numbered(2, 1)
	if _, err := r.ImportSubscriptions(ctx, o.ID, append(rs, gone)); err != nil {
		t.Fatal(err)
	}
	_, err = r.Remove(ctx, []relay.Removal{{Key: relay.MailboxKey{Organization: o.ID, Mailbox: gone.Mailbox}, App: gone.App, Device: gone.Device, Reason: "BadDeviceToken"}})
	if err != nil {
		t.Fatal(err)
	}
	counted := relay.ReceivedCount{Key: relay.MailboxKey{Organization: o.ID, Mailbox: shared.Mailbox}, Count: 7, ReceivedAt: time.Now()}
	shared.Mailbox, shared.KeepOthers = sharedMailbox, true
	if _, err := r.Subscribe(ctx, o.ID, shared); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Exchange(ctx, relay.ExchangeRequest{Relay: "one", Devices: []relay.SharedUpdate{
		{DeviceKey: relay.DeviceKey{App: shared.App, Device: shared.Device}, Counts: []relay.ReceivedCount{counted}},
	}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.AddOrganization(ctx, registry.NewOrganization{Name: "gone.com"}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.RemoveOrganization(ctx, "gone.com"), r.PurgeOrganization(ctx, "gone.com")); err != nil {
		t.Fatal(err)
	}
	return o.ID
}

// wantSame compares what both say of an organization.
func wantSame(t *testing.T, a, b registry.Registry, org relay.OrganizationID) {
	t.Helper()
	all := func(r registry.Registry) (lines []string) {
		o, err := r.OrganizationByID(t.Context(), org)
		if err != nil {
			t.Fatal(err)
		}
		c, err := r.Counts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%+v", o), fmt.Sprintf("%+v", c))
		shared, err := r.SharedDevicesOf(t.Context(), relay.MailboxKey{Organization: org, Mailbox: sharedMailbox})
		if err != nil || len(shared) != 1 || len(shared[0].Parts) != 2 {
			t.Fatalf("got %+v, %v, want a device on two mailboxes", shared, err)
		}
		lines = append(lines, fmt.Sprintf("%+v", shared))
		for _, removed := range []bool{false, true} {
			for page := (registry.Page{Size: registry.MaxPageSize}); ; {
				subs, next, err := r.ListSubscriptions(t.Context(), registry.SubscriptionFilter{Organization: org, Removed: removed}, page)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range subs {
					lines = append(lines, fmt.Sprintf("%+v", s))
				}
				if page.Token = next; next == "" {
					break
				}
			}
		}
		return lines
	}
	if got, want := all(b), all(a); !slices.Equal(got, want) {
		t.Errorf("the copy differs: %d lines and %d, beginning %.300v and %.300v", len(got), len(want), got, want)
	}
}
