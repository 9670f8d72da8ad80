package registrytest

import (
	"fmt"
	"slices"
	"strings"
	"time"

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
			got, next, err := h.ListOrganizations(ctx, page)
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
		_, _, err := h.ListOrganizations(ctx, registry.Page{Size: size})
		h.invalid(err, "page_size")
	}
	_, next, err := h.ListOrganizations(ctx, registry.Page{Size: 3})
	h.ok(err)
	for _, bad := range []string{"x", "!", next + "A", next[1:], strings.ToUpper(next)} {
		_, _, err := h.ListOrganizations(ctx, registry.Page{Token: bad})
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
	_, err := h.AddCredential(ctx, gone, newKey(h).certificate(h, year))
	h.ok(err)
	h.forget()
	h.ok(h.RemoveOrganization(ctx, "gone.com"))
	h.told("organization_removed gone.com")
	h.check(1, 1)
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
	_, err = h.AddCredential(ctx, gone, newKey(h).certificate(h, year))
	h.want(err, registry.ErrOrganizationNotFound)
	h.want(h.Unsubscribe(ctx, gone, reg("m1", 1)), registry.ErrSubscriptionNotFound)
	if c, err := h.Counts(ctx); err != nil || c.Organizations != 1 || c.Credentials != 0 {
		h.Errorf("got %+v, %v; want one organization without credentials", c, err)
	}
	h.told()
}
