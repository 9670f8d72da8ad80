package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"badgerelay/relay"
)

func (p *Postgres) credentials(ctx context.Context, where string, arg any) (cs []Credential, err error) {
	call, cancel := p.call(ctx)
	defer cancel()
	rows, err := p.pool.Query(call, selectCredentials+where, arg)
	err = pgEachRow(rows, err, func(rows pgx.Rows) error {
		c, err := scanCredential(rows)
		cs = append(cs, c)
		return err
	})
	return cs, err
}

// AddCredential implements Registry.
func (p *Postgres) AddCredential(ctx context.Context, org relay.OrganizationID, n NewCredential) (c Credential, err error) {
	defer p.done(ctx, opCredentialWrite, time.Now(), &err)
	if c, err = n.parse(); err != nil {
		return Credential{}, err
	}
	c.ID = strings.ToLower(rand.Text())
	err = p.write(ctx, func(t *pgTx) error {
		o, err := t.lockOrganization(pgOrganizationByID, int64(org))
		if err != nil {
			return err
		}
		c.Organization, c.OrganizationName, c.OrganizationEnabled, c.CreatedAt = o.ID, o.Name, o.Enabled, t.now
		return t.addCredential(c, n.Published)
	})
	if err != nil {
		return Credential{}, err
	}
	return c, nil
}

func (t *pgTx) addCredential(c Credential, published bool) error {
	// One key belongs to one organization, which no constraint can say: so one
	// credential is added at a time.
	if _, err := t.exec(`LOCK TABLE credentials IN SHARE ROW EXCLUSIVE MODE`); err != nil {
		return err
	}
	err := t.rows(`SELECT organization_id, certificate FROM credentials WHERE key_sha256 = $1`, []any{c.KeySHA256[:]}, func(rows pgx.Rows) error {
		var owner int64
		var certificate []byte
		if err := rows.Scan(&owner, &certificate); err != nil {
			return err
		}
		// A renewed certificate of the same key may stand beside the old one.
		if owner != int64(c.Organization) || bytes.Equal(certificate, c.Certificate) {
			return ErrCredentialExists
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := t.restoreCredential(c, published); err != nil {
		return err
	}
	_, err = t.exec(`INSERT INTO credentials (id, organization_id, certificate, x5t, key_sha256, start_at, end_at, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, c.ID, int64(c.Organization), c.Certificate, c.X5T[:], c.KeySHA256[:],
		c.StartAt.UnixMilli(), c.EndAt.UnixMilli(), c.CreatedAt.UnixMilli())
	t.credentialChanged(ChangeCredentialAdded, c)
	return err
}

// restoreCredential forgets that c was removed once, or refuses to where the
// certificate was only found and not given by a person.
func (t *pgTx) restoreCredential(c Credential, published bool) error {
	sum := sha256.Sum256(c.Certificate)
	const which = ` FROM removed_credentials WHERE organization_id = $1 AND certificate_sha256 = $2`
	args := []any{int64(c.Organization), sum[:]}
	if published {
		return t.rows(`SELECT 1`+which, args, func(pgx.Rows) error { return ErrCredentialRemoved })
	}
	_, err := t.exec(`DELETE`+which, args...)
	return err
}

// ListCredentials implements Registry.
func (p *Postgres) ListCredentials(ctx context.Context, org relay.OrganizationID) (cs []Credential, err error) {
	defer p.done(ctx, opCredentialRead, time.Now(), &err)
	cs, err = p.credentials(ctx, `WHERE c.organization_id = $1 ORDER BY c.start_at DESC, c.created_at DESC, c.id`, int64(org))
	if err != nil || len(cs) > 0 {
		return cs, err
	}
	call, cancel := p.call(ctx)
	defer cancel()
	_, err = scanOrganization(p.pool.QueryRow(call, pgOrganizationByID, int64(org)))
	return nil, err
}

// RemoveCredential implements Registry.
func (p *Postgres) RemoveCredential(ctx context.Context, org relay.OrganizationID, idOrThumbprint string) (err error) {
	defer p.done(ctx, opCredentialWrite, time.Now(), &err)
	x5t := thumbprint(idOrThumbprint)
	return p.write(ctx, func(t *pgTx) error {
		if _, err := t.lockOrganization(pgOrganizationByID, int64(org)); errors.Is(err, ErrOrganizationNotFound) {
			return ErrCredentialNotFound
		} else if err != nil {
			return err
		}
		c, err := scanCredential(t.tx.QueryRow(t.ctx, selectCredentials+`WHERE c.organization_id = $1 AND (c.id = $2 OR c.x5t = $3)`,
			int64(org), idOrThumbprint, x5t))
		if errors.Is(err, sql.ErrNoRows) {
			return ErrCredentialNotFound
		}
		if err != nil {
			return err
		}
		t.credentialChanged(ChangeCredentialRemoved, c)
		return t.removeCredential(c)
	})
}

// removeCredential remembers that c was removed, until its certificate ends,
// and forgets those that have ended since.
func (t *pgTx) removeCredential(c Credential) error {
	if _, err := t.exec(`DELETE FROM credentials WHERE id = $1`, c.ID); err != nil {
		return err
	}
	if _, err := t.exec(`DELETE FROM removed_credentials WHERE organization_id = $1 AND ends_at <= $2`, int64(c.Organization), t.due.UnixMilli()); err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(c.Certificate)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(c.Certificate)
	_, err = t.exec(`INSERT INTO removed_credentials (organization_id, certificate_sha256, ends_at) VALUES ($1, $2, $3)
		ON CONFLICT (organization_id, certificate_sha256) DO UPDATE SET ends_at = excluded.ends_at`,
		int64(c.Organization), sum[:], cert.NotAfter.UnixMilli())
	return err
}

// CredentialsByX5T implements Registry.
func (p *Postgres) CredentialsByX5T(ctx context.Context, x5t [20]byte) (cs []Credential, err error) {
	defer p.done(ctx, opCredentialRead, time.Now(), &err)
	return p.credentials(ctx, `WHERE c.x5t = $1 ORDER BY c.id`, x5t[:])
}

// TouchCredentials implements Registry.
func (p *Postgres) TouchCredentials(ctx context.Context, used map[string]time.Time) (err error) {
	if len(used) == 0 {
		return nil
	}
	defer p.done(ctx, opCredentialWrite, time.Now(), &err)
	ids, times := make([]string, 0, len(used)), make([]int64, 0, len(used))
	for id, at := range used {
		ids, times = append(ids, id), append(times, at.UnixMilli())
	}
	// In the order of ids, so that two relays don't wait for each other.
	call, cancel := p.call(ctx)
	defer cancel()
	_, err = p.pool.Exec(call, `WITH k AS (SELECT c.id, u.at FROM unnest($1::text[], $2::bigint[]) AS u (id, at)
			JOIN credentials c ON c.id = u.id WHERE c.last_used_at IS NULL OR c.last_used_at < u.at ORDER BY c.id FOR NO KEY UPDATE OF c)
		UPDATE credentials c SET last_used_at = k.at FROM k WHERE c.id = k.id`, ids, times)
	return err
}
