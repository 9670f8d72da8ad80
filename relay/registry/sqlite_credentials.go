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

	"badgerelay/relay"
)

const selectCredentials = `SELECT c.id, c.organization_id, o.name, o.enabled, c.certificate, c.x5t, c.key_sha256, c.start_at, c.end_at,
	c.created_at, c.last_used_at FROM credentials c JOIN organizations o ON o.id = c.organization_id `

func scanCredential(row scanner) (Credential, error) {
	var c Credential
	var x5t, key []byte
	var start, end, created int64
	var used sql.NullInt64
	err := row.Scan(&c.ID, &c.Organization, &c.OrganizationName, &c.OrganizationEnabled, &c.Certificate, &x5t, &key,
		&start, &end, &created, &used)
	if err != nil {
		return c, err
	}
	copy(c.X5T[:], x5t)
	copy(c.KeySHA256[:], key)
	c.StartAt, c.EndAt, c.CreatedAt = fromMillis(start), fromMillis(end), fromMillis(created)
	if used.Valid {
		c.LastUsedAt = fromMillis(used.Int64)
	}
	return c, nil
}

func (s *SQLite) credentials(ctx context.Context, where string, arg any) (cs []Credential, err error) {
	rows, err := s.readers.QueryContext(ctx, selectCredentials+where, arg)
	err = eachRow(rows, err, func(rows *sql.Rows) error {
		c, err := scanCredential(rows)
		cs = append(cs, c)
		return err
	})
	return cs, err
}

// AddCredential implements Registry.
func (s *SQLite) AddCredential(ctx context.Context, org relay.OrganizationID, n NewCredential) (c Credential, err error) {
	defer s.done(opCredentialWrite, time.Now(), &err)
	if c, err = n.parse(); err != nil {
		return Credential{}, err
	}
	c.ID = strings.ToLower(rand.Text())
	err = s.write(ctx, func(t *tx) error {
		o, err := t.organization(organizationByID, int64(org))
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

func (t *tx) addCredential(c Credential, published bool) error {
	err := t.rows(`SELECT organization_id, certificate FROM credentials WHERE key_sha256 = ?`, []any{c.KeySHA256[:]}, func(rows *sql.Rows) error {
		var owner relay.OrganizationID
		var certificate []byte
		if err := rows.Scan(&owner, &certificate); err != nil {
			return err
		}
		// A renewed certificate of the same key may stand beside the old one.
		if owner != c.Organization || bytes.Equal(certificate, c.Certificate) {
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
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, c.ID, int64(c.Organization), c.Certificate, c.X5T[:], c.KeySHA256[:],
		c.StartAt.UnixMilli(), c.EndAt.UnixMilli(), c.CreatedAt.UnixMilli())
	t.credentialChanged(ChangeCredentialAdded, c)
	return err
}

// restoreCredential forgets that c was removed once, or refuses to where the
// certificate was only found and not given by a person.
func (t *tx) restoreCredential(c Credential, published bool) error {
	sum := sha256.Sum256(c.Certificate)
	const which = ` FROM removed_credentials WHERE organization_id = ? AND certificate_sha256 = ?`
	args := []any{int64(c.Organization), sum[:]}
	if published {
		return t.rows(`SELECT 1`+which, args, func(*sql.Rows) error { return ErrCredentialRemoved })
	}
	_, err := t.exec(`DELETE`+which, args...)
	return err
}

// removeCredential remembers that c was removed, until its certificate ends,
// and forgets those that have ended since.
func (t *tx) removeCredential(c Credential) error {
	if _, err := t.exec(`DELETE FROM credentials WHERE id = ?`, c.ID); err != nil {
		return err
	}
	if _, err := t.exec(`DELETE FROM removed_credentials WHERE ends_at <= ?`, t.due.UnixMilli()); err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(c.Certificate)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(c.Certificate)
	_, err = t.exec(`INSERT OR REPLACE INTO removed_credentials (organization_id, certificate_sha256, ends_at) VALUES (?, ?, ?)`,
		int64(c.Organization), sum[:], cert.NotAfter.UnixMilli())
	t.credentialChanged(ChangeCredentialRemoved, c)
	return err
}

// ListCredentials implements Registry.
func (s *SQLite) ListCredentials(ctx context.Context, org relay.OrganizationID) (cs []Credential, err error) {
	defer s.done(opCredentialRead, time.Now(), &err)
	cs, err = s.credentials(ctx, `WHERE c.organization_id = ? ORDER BY c.start_at DESC, c.created_at DESC, c.id`, int64(org))
	if err != nil || len(cs) > 0 {
		return cs, err
	}
	_, err = scanOrganization(s.readers.QueryRowContext(ctx, organizationByID, int64(org)))
	return nil, err
}

// RemoveCredential implements Registry.
func (s *SQLite) RemoveCredential(ctx context.Context, org relay.OrganizationID, idOrThumbprint string) (err error) {
	defer s.done(opCredentialWrite, time.Now(), &err)
	x5t := thumbprint(idOrThumbprint)
	return s.write(ctx, func(t *tx) error {
		stmt, err := t.stmt(selectCredentials + `WHERE c.organization_id = ?1 AND (c.id = ?2 OR c.x5t = ?3)`)
		if err != nil {
			return err
		}
		c, err := scanCredential(stmt.QueryRowContext(t.ctx, int64(org), idOrThumbprint, x5t))
		if errors.Is(err, sql.ErrNoRows) {
			return ErrCredentialNotFound
		}
		if err != nil {
			return err
		}
		return t.removeCredential(c)
	})
}

// CredentialsByX5T implements Registry.
func (s *SQLite) CredentialsByX5T(ctx context.Context, x5t [20]byte) (cs []Credential, err error) {
	defer s.done(opCredentialRead, time.Now(), &err)
	return s.credentials(ctx, `WHERE c.x5t = ? ORDER BY c.id`, x5t[:])
}

// TouchCredentials implements Registry.
func (s *SQLite) TouchCredentials(ctx context.Context, used map[string]time.Time) (err error) {
	if len(used) == 0 {
		return nil
	}
	defer s.done(opCredentialWrite, time.Now(), &err)
	return s.write(ctx, func(t *tx) error {
		for id, at := range used {
			_, err := t.exec(`UPDATE credentials SET last_used_at = ?1 WHERE id = ?2 AND (last_used_at IS NULL OR last_used_at < ?1)`,
				at.UnixMilli(), id)
			if err != nil {
				return err
			}
		}
		return nil
	})
}
