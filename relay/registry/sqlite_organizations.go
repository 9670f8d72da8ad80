package registry

import (
	"context"
	"database/sql"
	"time"

	"badgerelay/relay"
)

const (
	organizationByName = `SELECT ` + organizationColumns + ` FROM organizations WHERE name = ?`
	organizationByID   = `SELECT ` + organizationColumns + ` FROM organizations WHERE id = ?`
)

// organization reads one inside a transaction.
func (t *tx) organization(query string, arg any) (Organization, error) {
	stmt, err := t.stmt(query)
	if err != nil {
		return Organization{}, err
	}
	return scanOrganization(stmt.QueryRowContext(t.ctx, arg))
}

// AddOrganization implements Registry.
func (s *SQLite) AddOrganization(ctx context.Context, n NewOrganization) (o Organization, err error) {
	defer s.done(opOrganizationWrite, time.Now(), &err)
	if n, err = n.normalize(); err != nil {
		return Organization{}, err
	}
	apps, err := appsJSON(n.Limits.Apps)
	if err != nil {
		return Organization{}, err
	}
	err = s.write(ctx, func(t *tx) error {
		added, err := t.exec(`INSERT INTO organizations
			(name, enabled, apps, max_mailboxes, max_subscriptions, max_streams, metadata_url, created_at)
			VALUES (?, 1, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING`,
			n.Name, apps, int64(n.Limits.MaxMailboxes), int64(n.Limits.MaxSubscriptions), n.Limits.MaxStreams, n.MetadataURL, t.now.UnixMilli())
		if err != nil {
			return err
		}
		if added == 0 {
			return ErrOrganizationExists
		}
		if o, err = t.organization(organizationByName, n.Name); err != nil {
			return err
		}
		t.organizationChanged(ChangeOrganizationChanged, o)
		return nil
	})
	return o, err
}

// GetOrganization implements Registry.
func (s *SQLite) GetOrganization(ctx context.Context, name string) (o Organization, err error) {
	defer s.done(opOrganizationRead, time.Now(), &err)
	if name, err = NormalizeOrganization(name); err != nil {
		return Organization{}, err
	}
	return scanOrganization(s.readers.QueryRowContext(ctx, organizationByName, name))
}

// OrganizationByID implements Registry.
func (s *SQLite) OrganizationByID(ctx context.Context, id relay.OrganizationID) (o Organization, err error) {
	defer s.done(opOrganizationRead, time.Now(), &err)
	return scanOrganization(s.readers.QueryRowContext(ctx, organizationByID, int64(id)))
}

// ListOrganizations implements Registry.
func (s *SQLite) ListOrganizations(ctx context.Context, page Page) (os []Organization, next string, err error) {
	defer s.done(opOrganizationRead, time.Now(), &err)
	size, after, err := organizationPage(page)
	if err != nil {
		return nil, "", err
	}
	rows, err := s.readers.QueryContext(ctx, `SELECT `+organizationColumns+` FROM organizations WHERE name > ? ORDER BY name LIMIT ?`,
		after, size+1) // one more says whether there is a next page
	err = eachRow(rows, err, func(rows *sql.Rows) error {
		o, err := scanOrganization(rows)
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
func (s *SQLite) UpdateOrganization(ctx context.Context, name string, u OrganizationUpdate) (o Organization, err error) {
	defer s.done(opOrganizationWrite, time.Now(), &err)
	if name, err = NormalizeOrganization(name); err != nil {
		return Organization{}, err
	}
	if u, err = u.normalize(); err != nil {
		return Organization{}, err
	}
	err = s.write(ctx, func(t *tx) error {
		if o, err = t.organization(organizationByName, name); err != nil {
			return err
		}
		u.apply(&o)
		apps, err := appsJSON(o.Limits.Apps)
		if err != nil {
			return err
		}
		_, err = t.exec(`UPDATE organizations SET enabled = ?, apps = ?, max_mailboxes = ?, max_subscriptions = ?, max_streams = ?,
			metadata_url = ? WHERE id = ?`,
			o.Enabled, apps, int64(o.Limits.MaxMailboxes), int64(o.Limits.MaxSubscriptions), o.Limits.MaxStreams, o.MetadataURL, int64(o.ID))
		t.organizationChanged(ChangeOrganizationChanged, o)
		return err
	})
	if err != nil {
		return Organization{}, err
	}
	return o, nil
}

// RemoveOrganization implements Registry.
func (s *SQLite) RemoveOrganization(ctx context.Context, name string) (err error) {
	defer s.done(opOrganizationWrite, time.Now(), &err)
	if name, err = NormalizeOrganization(name); err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		o, err := t.organization(organizationByName, name)
		if err != nil {
			return err
		}
		_, err = t.exec(`DELETE FROM organizations WHERE id = ?`, int64(o.ID)) // the rest goes by its foreign keys
		t.organizationChanged(ChangeOrganizationRemoved, o)
		return err
	})
}

// Counts implements Registry.
func (s *SQLite) Counts(ctx context.Context) (c Counts, err error) {
	defer s.done(opCounts, time.Now(), &err)
	err = s.readers.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(mailboxes), 0), coalesce(sum(subscriptions), 0),
		(SELECT count(*) FROM credentials) FROM organizations`).
		Scan(&c.Organizations, &c.Mailboxes, &c.Subscriptions, &c.Credentials)
	return c, err
}
