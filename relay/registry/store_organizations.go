package registry

import (
	"context"
	"errors"
	"time"

	"badgerelay/relay"
)

// organization reads one outside a transaction. ErrOrganizationNotFound.
func (s *store) organization(ctx context.Context, query string, arg any) (o Organization, err error) {
	err = s.one(ctx, ErrOrganizationNotFound, query, []any{arg}, func(row scanner) (err error) {
		o, err = scanOrganization(row)
		return err
	})
	return o, err
}

// AddOrganization implements Registry.
func (s *store) AddOrganization(ctx context.Context, n NewOrganization) (o Organization, err error) {
	defer s.done(ctx, opOrganizationWrite, time.Now(), &err)
	if n, err = n.normalize(); err != nil {
		return Organization{}, err
	}
	apps, err := appsJSON(n.Limits.Apps)
	if err != nil {
		return Organization{}, err
	}
	err = s.change(ctx, func(t *tx) error {
		added, err := t.exec(`INSERT INTO organizations
			(name, enabled, apps, max_mailboxes, max_subscriptions, max_streams, metadata_url, created_at)
			VALUES ($1, true, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO NOTHING`,
			n.Name, apps, int64(n.Limits.MaxMailboxes), int64(n.Limits.MaxSubscriptions), int64(n.Limits.MaxStreams), n.MetadataURL, t.now.UnixMilli())
		if err != nil {
			return err
		}
		if added == 0 {
			return t.whyNotAdded(n.Name)
		}
		if o, err = t.lockOrganization(organizationByName, n.Name); err != nil {
			return err
		}
		t.organizationChanged(ChangeOrganizationChanged, o)
		return nil
	})
	return o, err
}

// whyNotAdded says what stands in the way of an organization.
func (t *tx) whyNotAdded(name string) error {
	_, err := t.lockOrganization(purgedOrganization, name)
	switch {
	case err == nil:
		return ErrOrganizationRemoved
	case errors.Is(err, ErrOrganizationNotFound):
		return ErrOrganizationExists
	}
	return err
}

// GetOrganization implements Registry.
func (s *store) GetOrganization(ctx context.Context, name string) (o Organization, err error) {
	defer s.done(ctx, opOrganizationRead, time.Now(), &err)
	if name, err = NormalizeOrganization(name); err != nil {
		return Organization{}, err
	}
	return s.organization(ctx, organizationByName, name)
}

// OrganizationByID implements Registry.
func (s *store) OrganizationByID(ctx context.Context, id relay.OrganizationID) (o Organization, err error) {
	defer s.done(ctx, opOrganizationRead, time.Now(), &err)
	return s.organization(ctx, organizationByID, int64(id))
}

// ListOrganizations implements Registry.
func (s *store) ListOrganizations(ctx context.Context, f OrganizationFilter, page Page) (os []Organization, next string, err error) {
	defer s.done(ctx, opOrganizationRead, time.Now(), &err)
	size, after, err := organizationPage(page)
	if err != nil {
		return nil, "", err
	}
	are := `IS NULL`
	if f.Removed {
		are = `IS NOT NULL AND NOT purging`
	}
	err = s.query(ctx, `SELECT `+organizationColumns+` FROM organizations WHERE name > $1 AND removed_at `+are+` ORDER BY name LIMIT $2`,
		[]any{after, int64(size + 1)}, func(row scanner) error { // one more says whether there is a next page
			o, err := scanOrganization(row)
			os = append(os, o)
			return err
		})
	if err != nil {
		return nil, "", err
	}
	os, next = cutOrganizations(os, size)
	return os, next, nil
}

// UpdateOrganization implements Registry.
func (s *store) UpdateOrganization(ctx context.Context, name string, u OrganizationUpdate) (o Organization, err error) {
	defer s.done(ctx, opOrganizationWrite, time.Now(), &err)
	if name, err = NormalizeOrganization(name); err != nil {
		return Organization{}, err
	}
	if u, err = u.normalize(); err != nil {
		return Organization{}, err
	}
	err = s.change(ctx, func(t *tx) error {
		if o, err = t.lockOrganization(organizationByName, name); err != nil {
			return err
		}
		was := o.Enabled
		u.apply(&o)
		apps, err := appsJSON(o.Limits.Apps)
		if err != nil {
			return err
		}
		if o.Enabled != was {
			if err := t.changeSumsOf(o.ID, nil); err != nil {
				return err
			}
		}
		_, err = t.exec(`UPDATE organizations SET enabled = $1, apps = $2, max_mailboxes = $3, max_subscriptions = $4, max_streams = $5,
			metadata_url = $6 WHERE id = $7`,
			o.Enabled, apps, int64(o.Limits.MaxMailboxes), int64(o.Limits.MaxSubscriptions), int64(o.Limits.MaxStreams), o.MetadataURL, int64(o.ID))
		t.organizationChanged(ChangeOrganizationChanged, o)
		return err
	})
	if err != nil {
		return Organization{}, err
	}
	s.changeRestOfSums(ctx, o.ID)
	return o, nil
}
