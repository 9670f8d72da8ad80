package auth

import (
	"badgerelay/auth/audience"
	"badgerelay/auth/certs"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Lifetimes of issued tokens.
const (
	// DefaultTokenLifetime is the shortest in use among real producers.
	DefaultTokenLifetime = 8 * time.Hour
	// MaxTokenLifetime is the longest in use; relays refuse more than an hour
	// above it.
	MaxTokenLifetime = 24 * time.Hour
)

// IssuerConfig of an Issuer. None of it can be reloaded: make a new issuer.
type IssuerConfig struct {
	// Key signs. Required, and must be the certificate's.
	Key *rsa.PrivateKey
	// Certificate is named by the tokens' x5t. Required.
	Certificate *x509.Certificate
	// Realm is the organization. Required.
	Realm string
	// Principal is the GUID that calls. Empty is Exchange's.
	Principal string
	// TargetPrincipal is the relay's GUID. Required.
	TargetPrincipal string
	// Authority is the relay's host[:port]; port 443 is left out. Required.
	Authority string
	// Lifetime of a token. Zero is DefaultTokenLifetime; at most MaxTokenLifetime.
	Lifetime time.Duration
}

func (c *IssuerConfig) principal() string {
	if c.Principal == "" {
		return PrincipalExchange
	}
	return c.Principal
}

func (c *IssuerConfig) lifetime() time.Duration {
	if c.Lifetime == 0 {
		return DefaultTokenLifetime
	}
	return c.Lifetime
}

// Validate returns every problem of the configuration at once.
func (c *IssuerConfig) Validate() error {
	var errs []error
	if key, err := certs.PublicKey(c.Certificate); err != nil {
		errs = append(errs, err)
	} else if c.Key == nil || !c.Key.PublicKey.Equal(key) {
		errs = append(errs, errors.New("key is not the certificate's"))
	}
	if !audience.IsRealm(c.Realm) {
		errs = append(errs, fmt.Errorf("realm %q is not a domain", c.Realm))
	}
	if !audience.IsGUID(c.principal()) {
		errs = append(errs, fmt.Errorf("principal %q is not a GUID", c.Principal))
	}
	if !audience.IsGUID(c.TargetPrincipal) {
		errs = append(errs, fmt.Errorf("target principal %q is not a GUID", c.TargetPrincipal))
	}
	if !audience.IsAuthority(c.Authority) {
		errs = append(errs, fmt.Errorf("authority %q is not host or host:port", c.Authority))
	}
	if c.Lifetime < 0 || c.lifetime() < time.Minute || c.lifetime() > MaxTokenLifetime {
		errs = append(errs, fmt.Errorf("lifetime %v is not between a minute and %v", c.Lifetime, MaxTokenLifetime))
	}
	return errors.Join(errs...)
}

// Issuer is the built-in token issuer: it signs the organization's own
// app-only tokens. It is safe for concurrent use.
type Issuer struct {
	config IssuerConfig
	signer jose.Signer

	mu      sync.Mutex // guards what follows
	token   string     // the last one signed
	expires time.Time
}

// NewIssuer returns an issuer, or every problem of config.
func NewIssuer(config IssuerConfig) (*Issuer, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	options := (&jose.SignerOptions{}).WithType("JWT").WithHeader("x5t", certs.FormatX5T(certs.X5T(config.Certificate)))
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: config.Key}, options)
	if err != nil {
		return nil, fmt.Errorf("make signer: %w", err)
	}
	return &Issuer{config: config, signer: signer}, nil
}

// Token returns a token and when it expires. The last one is returned again
// while a quarter of its lifetime is left, unless it is unlike: a token that
// the caller cannot use any longer. A certificate outside its validity is
// an error that wraps ErrCertificate.
func (i *Issuer) Token(_ context.Context, unlike string) (string, time.Time, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	if i.token != "" && i.token != unlike && i.expires.Sub(now) > i.config.lifetime()/4 {
		return i.token, i.expires, nil
	}
	token, expires, err := i.sign(now, now)
	if err == nil && token == unlike {
		// The same second gives the same token; an older nbf tells them apart.
		token, expires, err = i.sign(now, now.Add(-time.Second))
	}
	if err != nil {
		return "", time.Time{}, err
	}
	i.token, i.expires = token, expires
	return token, expires, nil
}

// issuedClaims are the claims of MS-XOAUTH 4.2, times as numbers.
type issuedClaims struct {
	Audience  string `json:"aud"`
	Issuer    string `json:"iss"`
	NameID    string `json:"nameid"`
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`
}

func (i *Issuer) sign(now, notBefore time.Time) (string, time.Time, error) {
	cert := i.config.Certificate
	if now.Before(cert.NotBefore) || !now.Before(cert.NotAfter) {
		return "", time.Time{}, fmt.Errorf("%w: valid from %s to %s", certs.ErrCertificate,
			cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339))
	}
	expires := now.Add(i.config.lifetime()).Truncate(time.Second)
	if expires.After(cert.NotAfter) {
		expires = cert.NotAfter
	}
	self := i.config.principal() + "@" + i.config.Realm
	payload, err := json.Marshal(issuedClaims{
		Audience:  audience.Audience{Principal: i.config.TargetPrincipal, Authority: i.config.Authority, Realm: i.config.Realm}.String(),
		Issuer:    self,
		NameID:    self,
		NotBefore: notBefore.Unix(),
		Expires:   expires.Unix(),
	})
	if err != nil {
		return "", time.Time{}, fmt.Errorf("encode claims: %w", err)
	}
	signed, err := i.signer.Sign(payload)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("sign token: %w", err)
	}
	token, err := signed.CompactSerialize()
	return token, expires, err
}
