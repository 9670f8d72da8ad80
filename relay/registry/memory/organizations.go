package memory

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"badgerelay/auth"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// AddOrganization implements registry.Registry.
func (h *Handle) AddOrganization(ctx context.Context, n registry.NewOrganization) (o registry.Organization, err error) {
	if n, err = n.Normalize(); err != nil {
		return registry.Organization{}, err
	}
	err = h.write(ctx, "organization_write", func(t *transaction) error {
		if _, err := t.byName(n.Name); err == nil {
			return registry.ErrOrganizationExists
		}
		if _, err := t.removedByName(n.Name); err == nil {
			return registry.ErrOrganizationRemoved
		}
		t.lastID++
		added := &organization{
			Organization:  registry.Organization{ID: t.lastID, Name: n.Name, Enabled: true, Limits: n.Limits, MetadataURL: n.MetadataURL, CreatedAt: t.at},
			subscriptions: map[place]*registry.Subscription{}, removed: map[place]*registry.Subscription{}, superseded: map[place]bool{},
			mailboxes: map[string]int{}, writing: make(chan struct{}, 1),
		}
		if t.organizations == nil {
			t.organizations = map[relay.OrganizationID]*organization{}
		}
		t.organizations[t.lastID] = added
		o = added.row()
		t.organizationChanged(registry.ChangeOrganizationChanged, o)
		return nil
	})
	return o, err
}

func (t *transaction) organizationChanged(kind registry.ChangeKind, o registry.Organization) {
	t.changes = append(t.changes, registry.Change{Kind: kind, Organization: o.ID, OrganizationName: o.Name, OrganizationEnabled: o.Enabled})
}

// GetOrganization implements registry.Registry.
func (h *Handle) GetOrganization(ctx context.Context, name string) (o registry.Organization, err error) {
	err = h.read(ctx, "organization_read", func(d *Database) error {
		found, err := d.byName(name)
		if err == nil {
			o = found.row()
		}
		return err
	})
	return o, err
}

// OrganizationByID implements registry.Registry.
func (h *Handle) OrganizationByID(ctx context.Context, id relay.OrganizationID) (o registry.Organization, err error) {
	err = h.read(ctx, "organization_read", func(d *Database) error {
		found, err := d.byID(id)
		if err == nil {
			o = found.row()
		}
		return err
	})
	return o, err
}

// ListOrganizations implements registry.Registry.
func (h *Handle) ListOrganizations(ctx context.Context, f registry.OrganizationFilter, page registry.Page) (os []registry.Organization, next string, err error) {
	size, after, err := registry.OrganizationPosition(page)
	if err != nil {
		return nil, "", err
	}
	err = h.read(ctx, "organization_read", func(d *Database) error {
		for _, o := range d.organizations {
			if o.Name > after && f.Removed != o.RemovedAt.IsZero() {
				os = append(os, o.row())
			}
		}
		return nil
	})
	slices.SortFunc(os, func(a, b registry.Organization) int { return cmp.Compare(a.Name, b.Name) })
	os, next = registry.CutOrganizations(os[:min(len(os), size+1)], size)
	return os, next, err
}

// UpdateOrganization implements registry.Registry.
func (h *Handle) UpdateOrganization(ctx context.Context, name string, u registry.OrganizationUpdate) (o registry.Organization, err error) {
	if u, err = u.Normalize(); err != nil {
		return registry.Organization{}, err
	}
	id, err := h.idOf(ctx, name)
	if err != nil {
		return registry.Organization{}, err
	}
	err = h.write(ctx, "organization_write", func(t *transaction) error {
		found, err := t.byName(name)
		if err != nil {
			return err
		}
		was := found.Enabled
		if u.Apply(&found.Organization); found.Enabled != was {
			t.changeSumsOf(found)
		}
		o = found.row()
		t.organizationChanged(registry.ChangeOrganizationChanged, o)
		return nil
	}, id)
	return o, err
}

// idOf returns which row to lock.
func (h *Handle) idOf(ctx context.Context, name string) (relay.OrganizationID, error) {
	o, err := h.GetOrganization(ctx, name)
	return o.ID, err
}

// RemoveOrganization implements registry.Registry.
func (h *Handle) RemoveOrganization(ctx context.Context, name string) error {
	id, err := h.idOf(ctx, name)
	if err != nil {
		return err
	}
	return h.write(ctx, "organization_write", func(t *transaction) error {
		found, err := t.byName(name)
		if err != nil {
			return err
		}
		found.Enabled, found.RemovedAt = false, t.at
		t.changeSumsOf(found)
		t.organizationChanged(registry.ChangeOrganizationRemoved, found.row())
		return nil
	}, id)
}

// RestoreOrganization implements registry.Registry.
func (h *Handle) RestoreOrganization(ctx context.Context, name string) (o registry.Organization, err error) {
	err = h.write(ctx, "organization_write", func(t *transaction) error {
		found, err := t.removedByName(name)
		if err != nil {
			return err
		}
		found.RemovedAt = time.Time{}
		o = found.row()
		t.organizationChanged(registry.ChangeOrganizationChanged, o)
		return nil
	})
	return o, err
}

// PurgeOrganization implements registry.Registry.
func (h *Handle) PurgeOrganization(ctx context.Context, name string) error {
	return h.write(ctx, "organization_write", func(t *transaction) error {
		found, err := t.removedByName(name)
		if err != nil {
			return err
		}
		t.forgetOrganization(found.ID)
		return nil
	})
}

// forgetOrganization deletes what is kept of a removed one.
func (t *transaction) forgetOrganization(id relay.OrganizationID) {
	t.changeSumsOf(t.organizations[id])
	delete(t.organizations, id)
	maps.DeleteFunc(t.credentials, func(_ string, c *registry.Credential) bool { return relay.OrganizationID(c.OrganizationID) == id })
	maps.DeleteFunc(t.removedKeys, func(k removedKey, _ time.Time) bool { return k.organization == id })
}

// AddCredential implements registry.Registry.
func (h *Handle) AddCredential(ctx context.Context, org relay.OrganizationID, n registry.NewCredential) (c registry.Credential, err error) {
	if c, err = n.Parse(); err != nil {
		return registry.Credential{}, err
	}
	err = h.write(ctx, "credential_write", func(t *transaction) error {
		o, err := t.byID(org)
		if err != nil {
			return err
		}
		for _, other := range t.credentials {
			// A renewed certificate of the same key may stand beside the old one.
			if other.KeySHA256 == c.KeySHA256 && (relay.OrganizationID(other.OrganizationID) != org || bytes.Equal(other.Certificate.Raw, c.Certificate.Raw)) {
				return &registry.CredentialExistsError{Organization: other.Organization, Removed: t.isRemoved(relay.OrganizationID(other.OrganizationID))}
			}
		}
		key := removedKey{org, sha256.Sum256(c.Certificate.Raw)}
		if _, removed := t.removedKeys[key]; removed && n.Published {
			return registry.ErrCredentialRemoved
		}
		delete(t.removedKeys, key)
		t.lastKey++
		c.ID, c.OrganizationID, c.CreatedAt = fmt.Sprintf("credential%06d", t.lastKey), int64(org), t.at
		c.Organization, c.Enabled = o.Name, o.Enabled
		if t.credentials == nil {
			t.credentials = map[string]*registry.Credential{}
		}
		kept := c
		t.credentials[c.ID] = &kept
		t.credentialChanged(registry.ChangeCredentialAdded, c)
		return nil
	}, org)
	if err != nil {
		return registry.Credential{}, err
	}
	return c, nil
}

func (t *transaction) credentialChanged(kind registry.ChangeKind, c registry.Credential) {
	t.changes = append(t.changes, registry.Change{Kind: kind, Organization: relay.OrganizationID(c.OrganizationID), OrganizationName: c.Organization,
		CredentialID: c.ID, KeySHA256: c.KeySHA256})
}

// credentialsWhere returns those that are wanted, by id; the caller holds mu.
func (d *Database) credentialsWhere(wanted func(*registry.Credential) bool) (cs []registry.Credential) {
	for _, id := range slices.Sorted(maps.Keys(d.credentials)) {
		if c := *d.credentials[id]; wanted(&c) {
			c.Enabled = d.organizations[relay.OrganizationID(c.OrganizationID)].Enabled
			cs = append(cs, c)
		}
	}
	return cs
}

// ListCredentials implements registry.Registry.
func (h *Handle) ListCredentials(ctx context.Context, org relay.OrganizationID) (cs []registry.Credential, err error) {
	err = h.read(ctx, "credential_read", func(d *Database) error {
		cs = d.credentialsWhere(func(c *registry.Credential) bool { return relay.OrganizationID(c.OrganizationID) == org })
		_, err := d.byID(org)
		return err
	})
	slices.SortStableFunc(cs, func(a, b registry.Credential) int {
		return cmp.Or(b.StartAt.Compare(a.StartAt), b.CreatedAt.Compare(a.CreatedAt))
	})
	return cs, err
}

// RemoveCredential implements registry.Registry.
func (h *Handle) RemoveCredential(ctx context.Context, org relay.OrganizationID, idOrThumbprint string) error {
	x5t := registry.Thumbprint(idOrThumbprint)
	return h.write(ctx, "credential_write", func(t *transaction) error {
		found := t.credentialsWhere(func(c *registry.Credential) bool {
			return relay.OrganizationID(c.OrganizationID) == org && !t.isRemoved(org) && (c.ID == strings.ToLower(idOrThumbprint) || bytes.Equal(c.X5T[:], x5t))
		})
		if len(found) == 0 {
			return registry.ErrCredentialNotFound
		}
		c := found[0]
		if t.removedKeys == nil {
			t.removedKeys = map[removedKey]time.Time{}
		}
		maps.DeleteFunc(t.removedKeys, func(_ removedKey, ends time.Time) bool { return !ends.After(t.at) })
		t.removedKeys[removedKey{org, sha256.Sum256(c.Certificate.Raw)}] = c.Certificate.NotAfter
		delete(t.credentials, c.ID)
		t.credentialChanged(registry.ChangeCredentialRemoved, c)
		return nil
	}, org)
}

// CredentialsByX5T implements auth.Keys.
func (h *Handle) CredentialsByX5T(ctx context.Context, x5t [20]byte) (cs []auth.Credential, err error) {
	err = h.read(ctx, "credential_read", func(d *Database) error {
		for _, c := range d.credentialsWhere(func(c *registry.Credential) bool {
			return c.X5T == x5t && !d.isRemoved(relay.OrganizationID(c.OrganizationID))
		}) {
			cs = append(cs, c.Credential)
		}
		return nil
	})
	return cs, err
}

// TouchCredentials implements registry.Registry.
func (h *Handle) TouchCredentials(ctx context.Context, used map[string]time.Time) error {
	return h.write(ctx, "credential_write", func(t *transaction) error {
		for id, at := range used {
			if c := t.credentials[id]; c != nil && at.After(c.LastUsedAt) {
				c.LastUsedAt = time.UnixMilli(at.UnixMilli()).UTC()
			}
		}
		return nil
	})
}

// Counts implements registry.Registry.
func (h *Handle) Counts(ctx context.Context) (c registry.Counts, err error) {
	err = h.read(ctx, "counts", func(d *Database) error {
		c.Credentials = uint64(len(d.credentialsWhere(func(c *registry.Credential) bool { return !d.isRemoved(relay.OrganizationID(c.OrganizationID)) })))
		for id, o := range d.organizations {
			if d.isRemoved(id) {
				continue
			}
			c.Organizations++
			c.Mailboxes += uint64(len(o.mailboxes))
			c.Subscriptions += uint64(len(o.subscriptions))
		}
		return nil
	})
	return c, err
}
