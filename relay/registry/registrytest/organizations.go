package registrytest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

func testOrganizationNames(h *harness) {
	for _, name := range []string{"a", "Fabrikam.COM", "x--y.example", "1.2", strings.Repeat("a", 63) + ".b", strings.Repeat("a.", 126) + "b"} {
		o, err := h.AddOrganization(h.Context(), registry.NewOrganization{Name: name})
		h.ok(err)
		if o.Name != strings.ToLower(name) || !o.Enabled || o.ID == 0 {
			h.Errorf("organization %q became %+v", name, o)
		}
	}
	for _, name := range []string{"", ".", "a.", ".a", "a..b", "-a", "a-", "a-.b", "a.-b", "a_b", "a b", "ä.de", "a/b", "a\x00",
		strings.Repeat("a", 64), strings.Repeat("a.", 126) + "bc"} {
		_, err := h.AddOrganization(h.Context(), registry.NewOrganization{Name: name})
		h.invalid(err, "name")
		_, err = h.GetOrganization(h.Context(), name)
		h.invalid(err, "name")
	}
	_, err := h.AddOrganization(h.Context(), registry.NewOrganization{Name: "FABRIKAM.com"})
	h.want(err, registry.ErrOrganizationExists)
}

func testOrganizationLife(h *harness) {
	ctx, before := h.Context(), time.Now().Truncate(time.Millisecond)
	limits := registry.Limits{Apps: []string{"b", "a", "b"}, MaxMailboxes: 1<<63 - 1, MaxSubscriptions: 2, MaxStreams: 1<<32 - 1}
	added, err := h.AddOrganization(ctx, registry.NewOrganization{Name: "fabrikam.com", Limits: limits, MetadataURL: "https://fabrikam.com/m?x=1"})
	h.ok(err)
	h.told("organization_changed fabrikam.com true")
	if !slices.Equal(added.Limits.Apps, []string{"a", "b"}) || added.Limits.MaxMailboxes != 1<<63-1 || added.Limits.MaxStreams != 1<<32-1 ||
		added.MetadataURL != "https://fabrikam.com/m?x=1" {
		h.Errorf("limits were kept as %+v", added)
	}
	if added.CreatedAt.Before(before) || added.CreatedAt.After(time.Now()) || added.CreatedAt.Location() != time.UTC {
		h.Errorf("created at %v, want between %v and now, in UTC", added.CreatedAt, before)
	}
	off, none := false, ""
	got, err := h.UpdateOrganization(ctx, "FABRIKAM.com", registry.OrganizationUpdate{Enabled: &off, MetadataURL: &none})
	h.ok(err)
	h.told("organization_changed fabrikam.com false")
	if got.Enabled || got.MetadataURL != "" || len(got.Limits.Apps) != 2 {
		h.Errorf("disabled without metadata, limits as they were: got %+v", got)
	}
	got, err = h.UpdateOrganization(ctx, "fabrikam.com", registry.OrganizationUpdate{Limits: &registry.Limits{}})
	h.ok(err)
	if got.Enabled || len(got.Limits.Apps) != 0 || got.Limits.MaxMailboxes != 0 {
		h.Errorf("no limits, still disabled: got %+v", got)
	}
	h.forget()
	testOrganizationUpdateRules(h)
	h.ok(h.RemoveOrganization(ctx, "Fabrikam.com"))
	h.told("organization_removed fabrikam.com")
	h.want(h.RemoveOrganization(ctx, "fabrikam.com"), registry.ErrOrganizationNotFound)
	_, err = h.OrganizationByID(ctx, added.ID)
	h.want(err, registry.ErrOrganizationNotFound)
	h.ok(h.PurgeOrganization(ctx, "Fabrikam.com"))
	h.told()
	if again := h.org("fabrikam.com"); again == added.ID {
		h.Errorf("id %d was used again", again)
	}
}

// testOrganizationUpdateRules refuses changes to fabrikam.com; none is told.
func testOrganizationUpdateRules(h *harness) {
	ctx := h.Context()
	for _, bad := range []string{"http://a.com", "https://", "a", "https://u:p@a.com/", "https://a.com/" + strings.Repeat("x", 2048)} {
		_, err := h.UpdateOrganization(ctx, "fabrikam.com", registry.OrganizationUpdate{MetadataURL: &bad})
		h.invalid(err, "metadata_url")
		_, err = h.AddOrganization(ctx, registry.NewOrganization{Name: "new.com", MetadataURL: bad})
		h.invalid(err, "metadata_url")
	}
	for field, bad := range map[string]registry.Limits{
		"limits.apps":              {Apps: []string{""}},
		"limits.max_mailboxes":     {MaxMailboxes: 1 << 63},
		"limits.max_subscriptions": {MaxSubscriptions: 1 << 63},
	} {
		_, err := h.UpdateOrganization(ctx, "fabrikam.com", registry.OrganizationUpdate{Limits: &bad})
		h.invalid(err, field)
	}
	_, err := h.UpdateOrganization(ctx, "nobody.com", registry.OrganizationUpdate{})
	h.want(err, registry.ErrOrganizationNotFound)
	h.told()
}

func testOrganizationPages(h *harness) {
	ctx := h.Context()
	for i := range 25 {
		h.org(fmt.Sprintf("o%02d.com", i))
	}
	for _, size := range []int{1, 5, 24, 25, 26, 0} {
		var names []string
		for page := (registry.Page{Size: size}); ; {
			got, next, err := h.ListOrganizations(ctx, registry.OrganizationFilter{}, page)
			h.ok(err)
			for _, o := range got {
				names = append(names, o.Name)
			}
			if next == "" {
				break
			}
			if page.Token = next; len(got) != size {
				h.Errorf("a page of %d that is not the last has %d", size, len(got))
			}
		}
		if len(names) != 25 || !slices.IsSorted(names) {
			h.Errorf("pages of %d: got %d names, want 25, sorted: %v", size, len(names), names)
		}
	}
	for _, size := range []int{-1, 1001} {
		_, _, err := h.ListOrganizations(ctx, registry.OrganizationFilter{}, registry.Page{Size: size})
		h.invalid(err, "page_size")
	}
	_, next, err := h.ListOrganizations(ctx, registry.OrganizationFilter{}, registry.Page{Size: 3})
	h.ok(err)
	for _, bad := range []string{"x", "!", next + "A", next[1:], strings.ToUpper(next)} {
		_, _, err := h.ListOrganizations(ctx, registry.OrganizationFilter{}, registry.Page{Token: bad})
		h.invalid(err, "page_token")
	}
	_, _, err = h.ListSubscriptions(ctx, registry.SubscriptionFilter{Organization: 1}, registry.Page{Token: next})
	h.invalid(err, "page_token")
}

func testOrganizationRemoved(h *harness) {
	ctx := h.Context()
	gone, stays := h.org("gone.com"), h.org("stays.com")
	for i := range 10 {
		h.subscribe(gone, reg(fmt.Sprint("m", i), i))
	}
	h.subscribe(stays, reg("m1", 1))
	_, err := h.AddCredential(ctx, gone, newKey(h).certificate(year))
	h.ok(err)
	h.forget()
	h.ok(h.RemoveOrganization(ctx, "gone.com"))
	h.told("organization_removed gone.com")
	h.check(1, 1)
	found, err := h.Lookup(ctx, []relay.MailboxKey{key(gone, "m1"), key(stays, "m1")})
	if err != nil || len(found[0]) != 0 || len(found[1]) != 1 {
		h.Errorf("looked up %v, %v; want nothing of the organization that was removed", found, err)
	}
	_, err = h.Subscribe(ctx, gone, reg("m", 1))
	h.want(err, registry.ErrOrganizationNotFound)
	_, err = h.ImportSubscriptions(ctx, gone, []registry.Registration{reg("m", 1)})
	h.want(err, registry.ErrOrganizationNotFound)
	_, err = h.ImportSubscriptions(ctx, gone, nil)
	h.want(err, registry.ErrOrganizationNotFound)
	_, _, err = h.ListSubscriptions(ctx, registry.SubscriptionFilter{Organization: gone}, registry.Page{})
	h.want(err, registry.ErrOrganizationNotFound)
	_, err = h.ListCredentials(ctx, gone)
	h.want(err, registry.ErrOrganizationNotFound)
	_, err = h.AddCredential(ctx, gone, newKey(h).certificate(year))
	h.want(err, registry.ErrOrganizationNotFound)
	h.want(h.Unsubscribe(ctx, gone, reg("m1", 1)), registry.ErrSubscriptionNotFound)
	if c, err := h.Counts(ctx); err != nil || c.Organizations != 1 || c.Credentials != 0 {
		h.Errorf("got %+v, %v; want one organization without credentials", c, err)
	}
	h.told()
}

// testOrganizationRestored removes an organization by mistake.
func testOrganizationRestored(h *harness) {
	ctx := h.Context()
	gone, stays := h.org("gone.com", registry.Limits{MaxSubscriptions: 20}), h.org("stays.com")
	for i := range 10 {
		h.subscribe(gone, reg(fmt.Sprint("m", i/2), i))
	}
	h.subscribe(stays, reg("m1", 1))
	key := newKey(h)
	credential, err := h.AddCredential(ctx, gone, key.certificate(year))
	h.ok(err)
	_, err = h.RestoreOrganization(ctx, "gone.com")
	h.want(err, registry.ErrOrganizationNotFound) // it is there
	h.want(h.PurgeOrganization(ctx, "gone.com"), registry.ErrOrganizationNotFound)
	h.ok(h.RemoveOrganization(ctx, "gone.com"))
	h.forget()
	testOrganizationRemains(h, credential)
	h.told()

	for _, bad := range []string{"", "gone .com"} {
		_, err := h.RestoreOrganization(ctx, bad)
		h.invalid(err, "name")
		h.invalid(h.PurgeOrganization(ctx, bad), "name")
	}
	back, err := h.RestoreOrganization(ctx, "GONE.com")
	h.ok(err)
	h.told("organization_changed gone.com false")
	if back.ID != gone || back.Enabled || !back.RemovedAt.IsZero() || back.Subscriptions != 10 || back.Mailboxes != 5 || back.Limits.MaxSubscriptions != 20 {
		h.Errorf("restored %+v; want it as it was, and disabled", back)
	}
	_, err = h.RestoreOrganization(ctx, "gone.com")
	h.want(err, registry.ErrOrganizationNotFound)
	h.check(6, 11)
	if cs, err := h.CredentialsByX5T(ctx, credential.X5T); err != nil || len(cs) != 1 || cs[0].Enabled {
		h.Errorf("got credentials %+v, %v; want the one, disabled", cs, err)
	}
	h.subscribe(gone, reg("m9", 9)) // it moves, as before
	h.check(7, 11)

	h.ok(h.RemoveOrganization(ctx, "gone.com"))
	h.ok(h.PurgeOrganization(ctx, "gone.com"))
	_, err = h.RestoreOrganization(ctx, "gone.com")
	h.want(err, registry.ErrOrganizationNotFound)
	_, err = h.AddCredential(ctx, stays, key.certificate(year)) // its key is free
	h.ok(err)
	h.check(1, 1)
}

// testOrganizationRemains looks at what is seen of gone.com, which was removed with
// ten subscriptions, beside stays.com.
func testOrganizationRemains(h *harness, c registry.Credential) {
	h.Helper()
	ctx, gone := h.Context(), relay.OrganizationID(c.OrganizationID)
	h.check(1, 1)
	_, err := h.AddOrganization(ctx, registry.NewOrganization{Name: "gone.com"})
	h.want(err, registry.ErrOrganizationRemoved)
	stays, err := h.GetOrganization(ctx, "stays.com")
	h.ok(err)
	_, err = h.AddCredential(ctx, stays.ID, registry.NewCredential{Certificate: c.Certificate.Raw})
	if e, ok := errors.AsType[*registry.CredentialExistsError](err); !ok || e.Organization != "gone.com" || !e.Removed {
		h.Errorf("its key for another: got %v, want an error that names it as removed", err)
	}
	for removed, want := range map[bool]string{true: "gone.com", false: "stays.com"} {
		os, _, err := h.ListOrganizations(ctx, registry.OrganizationFilter{Removed: removed}, registry.Page{})
		if err != nil || len(os) != 1 || os[0].Name != want || os[0].RemovedAt.IsZero() == removed {
			h.Errorf("list of removed %t: got %+v, %v; want %s", removed, os, err, want)
		}
	}
	_, err = h.UpdateOrganization(ctx, "gone.com", registry.OrganizationUpdate{})
	h.want(err, registry.ErrOrganizationNotFound)
	if cs, err := h.CredentialsByX5T(ctx, c.X5T); err != nil || len(cs) > 0 {
		h.Errorf("its credential is found: %+v, %v", cs, err)
	}
	h.want(h.RemoveCredential(ctx, gone, c.ID), registry.ErrCredentialNotFound)
	if mailboxes, err := h.Mailboxes(ctx, gone, "", 10); err != nil || len(mailboxes) > 0 {
		h.Errorf("its mailboxes are found: %q, %v", mailboxes, err)
	}
	// What a relay still had under way.
	r := reg("m0", 0)
	who := relay.Removal{Key: relay.MailboxKey{Organization: gone, Mailbox: r.Mailbox}, App: r.App, Device: r.Device, Reason: "Unregistered"}
	if removed, err := h.Remove(ctx, []relay.Removal{who}); err != nil || removed[0] {
		h.Errorf("a subscription of it was removed: %v, %v", removed, err)
	}
	judged, err := h.Refuse(ctx, []relay.Refusal{{Key: who.Key, App: r.App, Device: r.Device, Reason: "Unregistered", GoneSince: time.Now().Add(time.Hour)}})
	if err != nil || judged[0].Verdict != relay.RefusalSpares {
		h.Errorf("a refused device of it: %+v, %v; want it spared", judged, err)
	}
}
