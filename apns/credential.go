package apns

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// Credential is what a pool proves itself with: a provider token or a client
// certificate, exactly one.
type Credential struct {
	Token       *TokenSource
	Certificate *tls.Certificate
}

// Validate reports whether exactly one of the two is there.
func (c Credential) Validate() error {
	if (c.Token == nil) == (c.Certificate == nil) {
		return errors.New("exactly one of token and certificate is needed")
	}
	return nil
}

// expiry returns the end of the certificate; zero with a token.
func (c Credential) expiry() time.Time {
	if c.Certificate == nil || len(c.Certificate.Certificate) == 0 {
		return time.Time{}
	}
	leaf := c.Certificate.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(c.Certificate.Certificate[0]); err != nil {
			return time.Time{}
		}
	}
	return leaf.NotAfter
}
