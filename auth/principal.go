package auth

import (
	"context"
	"crypto/x509"
	"time"
)

// Principal is who a token was signed by. Values are shared between calls:
// treat them as read-only.
type Principal struct {
	OrganizationID int64
	Organization   string
	CredentialID   string
	// X5T is the SHA-1 of the certificate: an index, never an identity.
	X5T [20]byte
	// KeySHA256 is the SHA-256 of the subject public key info: the identity
	// of the key.
	KeySHA256 [32]byte
	// ExpiresAt is the earliest of the token's exp, the credential's end and
	// the certificate's end: what the caller is told, so that it renews before. A
	// token taken within the clock skew after its exp has it in the past.
	ExpiresAt time.Time
	// GoodUntil is the first moment at which the token is refused, and what was
	// opened with it ends: after exp and the clock skew, or at the end of the
	// credential or its certificate, to which no skew applies.
	GoodUntil time.Time
}

// Credential is a certificate that an organization signs its tokens with.
type Credential struct {
	ID             string
	OrganizationID int64
	// Organization is the organization's realm.
	Organization string
	// Enabled is whether the organization is.
	Enabled     bool
	Certificate *x509.Certificate
	// StartAt and EndAt bound the credential inside the certificate's
	// validity; zero is no bound of its own.
	StartAt, EndAt time.Time
}

// Keys finds registered credentials. It is called concurrently.
type Keys interface {
	// CredentialsByX5T returns every credential whose certificate has the
	// SHA-1 x5t, of whatever organization, ended and disabled ones included.
	// None is no error. The result and what it points to stay unchanged.
	CredentialsByX5T(ctx context.Context, x5t [20]byte) ([]Credential, error)
}

type principalKey struct{}

// ContextWithPrincipal returns a context that carries p.
func ContextWithPrincipal(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// PrincipalFrom returns the principal that an interceptor put into ctx.
func PrincipalFrom(ctx context.Context) (*Principal, bool) {
	p, ok := ctx.Value(principalKey{}).(*Principal)
	return p, ok
}
