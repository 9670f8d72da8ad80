package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"badgerelay/auth"
	"badgerelay/relay"
)

const selectCredentials = `SELECT c.id, c.organization_id, o.name, o.enabled, c.certificate, c.x5t, c.key_sha256, c.start_at, c.end_at,
	c.created_at, c.last_used_at FROM credentials c JOIN organizations o ON o.id = c.organization_id AND o.removed_at IS NULL `

func scanCredential(row scanner) (Credential, error) {
	var c Credential
	var der, x5t, key raw
	var start, end, created int64
	var used sql.NullInt64
	err := row.Scan(&c.ID, &c.OrganizationID, &c.Organization, &c.Enabled, &der, &x5t, &key,
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
	if c.Certificate, err = x509.ParseCertificate(bytes.Clone(der)); err != nil { // it keeps the bytes it is given
		return c, &unreadableError{fmt.Errorf("read credential %s of %s: %w", c.ID, c.Organization, err)}
	}
	return c, nil
}

func (s *store) credentials(ctx context.Context, where string, arg any) (cs []Credential, err error) {
	err = s.query(ctx, selectCredentials+where, []any{arg}, func(row scanner) error {
		c, err := scanCredential(row)
		if err != nil {
			return s.passOverUnreadable("credentials", err)
		}
		cs = append(cs, c)
		return nil
	})
	return cs, err
}

// AddCredential implements Registry.
func (s *store) AddCredential(ctx context.Context, org relay.OrganizationID, n NewCredential) (c Credential, err error) {
	defer s.done(ctx, opCredentialWrite, time.Now(), &err)
	if c, err = n.parse(); err != nil {
		return Credential{}, err
	}
	c.ID = strings.ToLower(rand.Text())
	err = s.change(ctx, func(t *tx) error {
		o, err := t.lockOrganization(organizationByID, int64(org))
		if err != nil {
			return err
		}
		c.OrganizationID, c.Organization, c.Enabled, c.CreatedAt = int64(o.ID), o.Name, o.Enabled, t.now
		return t.addCredential(c, n.Published)
	})
	if err != nil {
		return Credential{}, err
	}
	return c, nil
}

func (t *tx) addCredential(c Credential, published bool) error {
	if t.lockCredentials != "" {
		t.queue(statement{query: t.lockCredentials})
	}
	err := t.each(`SELECT c.organization_id, o.name, o.removed_at, c.certificate
		FROM credentials c JOIN organizations o ON o.id = c.organization_id WHERE c.key_sha256 = $1`, []any{c.KeySHA256[:]}, func(row scanner) error {
		var owner int64
		var name string
		var removed sql.NullInt64
		var certificate raw
		if err := row.Scan(&owner, &name, &removed, &certificate); err != nil {
			return err
		}
		// A renewed certificate of the same key may stand beside the old one.
		if owner != c.OrganizationID || bytes.Equal(certificate, c.Certificate.Raw) {
			return &CredentialExistsError{Organization: name, Removed: removed.Valid}
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
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, c.ID, c.OrganizationID, c.Certificate.Raw, c.X5T[:], c.KeySHA256[:],
		c.StartAt.UnixMilli(), c.EndAt.UnixMilli(), c.CreatedAt.UnixMilli())
	t.credentialChanged(ChangeCredentialAdded, c)
	return err
}

// restoreCredential forgets that c was removed once, or refuses to where the
// certificate was only found and not given by a person.
func (t *tx) restoreCredential(c Credential, published bool) error {
	sum := sha256.Sum256(c.Certificate.Raw)
	const which = ` FROM removed_credentials WHERE organization_id = $1 AND certificate_sha256 = $2`
	if published {
		return t.each(`SELECT 1`+which, []any{c.OrganizationID, sum[:]}, func(scanner) error { return ErrCredentialRemoved })
	}
	_, err := t.exec(`DELETE`+which, c.OrganizationID, sum[:])
	return err
}

// removeCredential remembers that c was removed, until its certificate ends,
// and forgets those that have ended since.
func (t *tx) removeCredential(c Credential) error {
	t.queue(statement{query: `DELETE FROM credentials WHERE id = $1`, args: []any{c.ID}})
	t.queue(statement{query: `DELETE FROM removed_credentials WHERE organization_id = $1 AND ends_at <= $2`,
		args: []any{c.OrganizationID, t.due.UnixMilli()}})
	if c.Certificate != nil { // one that can't be read can't be added again either
		sum := sha256.Sum256(c.Certificate.Raw)
		t.queue(statement{query: `INSERT INTO removed_credentials (organization_id, certificate_sha256, ends_at) VALUES ($1, $2, $3)
			ON CONFLICT (organization_id, certificate_sha256) DO UPDATE SET ends_at = excluded.ends_at`,
			args: []any{c.OrganizationID, sum[:], c.Certificate.NotAfter.UnixMilli()}})
	}
	t.credentialChanged(ChangeCredentialRemoved, c)
	return t.flush()
}

// ListCredentials implements Registry.
func (s *store) ListCredentials(ctx context.Context, org relay.OrganizationID) (cs []Credential, err error) {
	defer s.done(ctx, opCredentialRead, time.Now(), &err)
	cs, err = s.credentials(ctx, `WHERE c.organization_id = $1 ORDER BY c.start_at DESC, c.created_at DESC, c.id`, int64(org))
	if err != nil || len(cs) > 0 {
		return cs, err
	}
	_, err = s.organization(ctx, organizationByID, int64(org))
	return nil, err
}

// RemoveCredential implements Registry.
func (s *store) RemoveCredential(ctx context.Context, org relay.OrganizationID, idOrThumbprint string) (err error) {
	defer s.done(ctx, opCredentialWrite, time.Now(), &err)
	x5t := thumbprint(idOrThumbprint)
	return s.change(ctx, func(t *tx) error {
		_, err := t.lockOrganization(organizationByID, int64(org))
		if errors.Is(err, ErrOrganizationNotFound) {
			return ErrCredentialNotFound
		}
		if err != nil {
			return err
		}
		var c Credential
		err = t.each(selectCredentials+`WHERE c.organization_id = $1 AND (c.id = $2 OR c.x5t = $3)`, []any{int64(org), idOrThumbprint, x5t},
			func(row scanner) (err error) {
				c, err = scanCredential(row)
				if _, bad := errors.AsType[*unreadableError](err); bad {
					return nil // it is removed all the same
				}
				return err
			})
		if err != nil {
			return err
		}
		if c.ID == "" {
			return ErrCredentialNotFound
		}
		return t.removeCredential(c)
	})
}

// CredentialsByX5T implements auth.Keys.
func (s *store) CredentialsByX5T(ctx context.Context, x5t [20]byte) (found []auth.Credential, err error) {
	defer s.done(ctx, opCredentialRead, time.Now(), &err)
	cs, err := s.credentials(ctx, `WHERE c.x5t = $1 ORDER BY c.id`, x5t[:])
	for i := range cs {
		found = append(found, cs[i].Credential)
	}
	return found, err
}

var touchColumns = newColumns("id text", "at bigint")

// TouchCredentials implements Registry.
func (s *store) TouchCredentials(ctx context.Context, used map[string]time.Time) (err error) {
	if len(used) == 0 {
		return nil
	}
	defer s.done(ctx, opCredentialWrite, time.Now(), &err)
	k := newTable(touchColumns, len(used))
	for id, at := range used {
		k.add(id, at.UnixMilli())
	}
	return s.change(ctx, func(t *tx) error {
		// In the order of ids, so that two relays don't wait for each other.
		t.queue(statement{k: k, query: `SELECT id FROM credentials WHERE id IN (SELECT id FROM k) ORDER BY id` + t.lock,
			each: func(scanner) error { return nil }})
		t.over(k, `UPDATE credentials SET last_used_at = k.at FROM k
			WHERE credentials.id = k.id AND (last_used_at IS NULL OR last_used_at < k.at)`)
		return nil
	})
}
