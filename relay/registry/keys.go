package registry

import (
	"context"
	"crypto/x509"
	"fmt"

	"badgerelay/auth"
)

// AuthKeys returns the credentials of r in the form that auth verifies tokens
// with. It is safe for concurrent use.
func AuthKeys(r Registry) auth.Keys { return authKeys{r} }

type authKeys struct{ registry Registry }

// CredentialsByX5T implements auth.Keys.
func (k authKeys) CredentialsByX5T(ctx context.Context, x5t [20]byte) ([]auth.Credential, error) {
	cs, err := k.registry.CredentialsByX5T(ctx, x5t)
	if err != nil {
		return nil, err
	}
	found := make([]auth.Credential, len(cs))
	for i, c := range cs {
		certificate, err := x509.ParseCertificate(c.Certificate)
		if err != nil {
			return nil, fmt.Errorf("parse certificate of credential %s: %w", c.ID, err)
		}
		found[i] = auth.Credential{
			ID: c.ID, OrganizationID: int64(c.Organization), Organization: c.OrganizationName, Enabled: c.OrganizationEnabled,
			Certificate: certificate, StartAt: c.StartAt, EndAt: c.EndAt,
		}
	}
	return found, nil
}
