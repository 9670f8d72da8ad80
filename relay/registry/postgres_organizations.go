package registry

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"badgerelay/relay"
)

const (
	pgOrganizationByName = `SELECT ` + organizationColumns + ` FROM organizations WHERE name = $1`
	pgOrganizationByID   = `SELECT ` + organizationColumns + ` FROM organizations WHERE id = $1`
)

// AddOrganization implements Registry.
func (p *Postgres) AddOrganization(ctx context.Context, n NewOrganization) (o Organization, err error) {
	defer p.done(ctx, opOrganizationWrite, time.Now(), &err)
	if n, err = n.normalize(); err != nil {
		return Organization{}, err
	}
	apps, err := appsJSON(n.Limits.Apps)
	if err != nil {
		return Organization{}, err
	}
	err = p.write(ctx, func(t *pgTx) error {
		added, err := t.exec(`INSERT INTO organizations
			(name, enabled, apps, max_mailboxes, max_subscriptions, max_streams, metadata_url, created_at)
			VALUES ($1, true, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO NOTHING`,
			n.Name, apps, int64(n.Limits.MaxMailboxes), int64(n.Limits.MaxSubscriptions), int64(n.Limits.MaxStreams), n.MetadataURL, t.now.UnixMilli())
		if err != nil {
			return err
		}
		if added == 0 {
			return ErrOrganizationExists
		}
		if o, err = t.lockOrganization(pgOrganizationByName, n.Name); err != nil {
			return err
		}
		t.organizationChanged(ChangeOrganizationChanged, o)
		return nil
	})
	return o, err
}

// GetOrganization implements Registry.
func (p *Postgres) GetOrganization(ctx context.Context, name string) (o Organization, err error) {
	defer p.done(ctx, opOrganizationRead, time.Now(), &err)
	if name, err = NormalizeOrganization(name); err != nil {
		return Organization{}, err
	}
	call, cancel := p.call(ctx)
	defer cancel()
	return scanOrganization(p.pool.QueryRow(call, pgOrganizationByName, name))
}

// OrganizationByID implements Registry.
func (p *Postgres) OrganizationByID(ctx context.Context, id relay.OrganizationID) (o Organization, err error) {
	defer p.done(ctx, opOrganizationRead, time.Now(), &err)
	call, cancel := p.call(ctx)
	defer cancel()
	return scanOrganization(p.pool.QueryRow(call, pgOrganizationByID, int64(id)))
}

// ListOrganizations implements Registry.
func (p *Postgres) ListOrganizations(ctx context.Context, page Page) (os []Organization, next string, err error) {
	defer p.done(ctx, opOrganizationRead, time.Now(), &err)
	size, after, err := organizationPage(page)
	if err != nil {
		return nil, "", err
	}
	call, cancel := p.call(ctx)
	defer cancel()
	rows, err := p.pool.Query(call, `SELECT `+organizationColumns+` FROM organizations WHERE name > $1 ORDER BY name LIMIT $2`,
		after, size+1) // one more says whether there is a next page
	err = pgEachRow(rows, err, func(rows pgx.Rows) error {
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
func (p *Postgres) UpdateOrganization(ctx context.Context, name string, u OrganizationUpdate) (o Organization, err error) {
	defer p.done(ctx, opOrganizationWrite, time.Now(), &err)
	if name, err = NormalizeOrganization(name); err != nil {
		return Organization{}, err
	}
	if u, err = u.normalize(); err != nil {
		return Organization{}, err
	}
	err = p.write(ctx, func(t *pgTx) error {
		if o, err = t.lockOrganization(pgOrganizationByName, name); err != nil {
			return err
		}
		u.apply(&o)
		apps, err := appsJSON(o.Limits.Apps)
		if err != nil {
			return err
		}
		_, err = t.exec(`UPDATE organizations SET enabled = $1, apps = $2, max_mailboxes = $3, max_subscriptions = $4, max_streams = $5,
			metadata_url = $6 WHERE id = $7`, o.Enabled, apps, int64(o.Limits.MaxMailboxes), int64(o.Limits.MaxSubscriptions),
			int64(o.Limits.MaxStreams), o.MetadataURL, int64(o.ID))
		t.organizationChanged(ChangeOrganizationChanged, o)
		return err
	})
	if err != nil {
		return Organization{}, err
	}
	return o, nil
}

// RemoveOrganization implements Registry.
func (p *Postgres) RemoveOrganization(ctx context.Context, name string) (err error) {
	defer p.done(ctx, opOrganizationWrite, time.Now(), &err)
	if name, err = NormalizeOrganization(name); err != nil {
		return err
	}
	return p.write(ctx, func(t *pgTx) error {
		o, err := t.lockOrganization(pgOrganizationByName, name)
		if err != nil {
			return err
		}
		_, err = t.exec(`DELETE FROM organizations WHERE id = $1`, int64(o.ID)) // the rest goes by its foreign keys
		t.organizationChanged(ChangeOrganizationRemoved, o)
		return err
	})
}

// Counts implements Registry.
func (p *Postgres) Counts(ctx context.Context) (c Counts, err error) {
	defer p.done(ctx, opCounts, time.Now(), &err)
	call, cancel := p.call(ctx)
	defer cancel()
	err = p.pool.QueryRow(call, `SELECT count(*), coalesce(sum(mailboxes), 0)::bigint, coalesce(sum(subscriptions), 0)::bigint,
		(SELECT count(*) FROM credentials) FROM organizations`).
		Scan(&c.Organizations, &c.Mailboxes, &c.Subscriptions, &c.Credentials)
	return c, err
}
