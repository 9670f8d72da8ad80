package main

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"path/filepath"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/certs"
)

var (
	errNoCertificate = errors.New("there is no certificate")
	errNotStaged     = errors.New("no next certificate is staged")
)

// certificateDir is the certificate store, in the directory.
const certificateDir = "certificates"

// certificate is one certificate and its key.
type certificate struct {
	*x509.Certificate
	key    *rsa.PrivateKey
	domain string
}

// Thumbprint is how Windows names a certificate.
func (c *certificate) Thumbprint() string { return certs.Thumbprint(c.Certificate) }

// PublicKeySize is the key's size in bits.
func (c *certificate) PublicKeySize() int { return c.key.N.BitLen() }

// rollover is what the store holds; nil: none.
type rollover struct {
	current, next, previous *certificate
	effective               time.Time // of next
	retire                  time.Time // of previous
}

// certificates opens the store for a change; reading makes nothing.
func (a *app) certificates() (*certs.Store, error) {
	if err := a.makeDir(); err != nil {
		return nil, err
	}
	return certs.OpenStore(filepath.Join(a.dir, certificateDir))
}

func (a *app) rollover() (r rollover, err error) {
	if !exists(filepath.Join(a.dir, certificateDir)) {
		return r, nil
	}
	store, err := a.certificates()
	if err != nil {
		return r, err
	}
	state, err := store.State()
	if err != nil {
		return r, err
	}
	for _, slot := range []struct {
		from *certs.Slot
		to   **certificate
	}{{state.Current, &r.current}, {state.Next, &r.next}, {state.Previous, &r.previous}} {
		if slot.from == nil {
			continue
		}
		pair, err := store.Load(slot.from)
		if err != nil {
			return r, err
		}
		*slot.to = &certificate{pair.Certificate, pair.Key, slot.from.Domain}
	}
	if state.Next != nil {
		r.effective = state.Next.EffectiveAt
	}
	if state.Previous != nil {
		r.retire = state.Previous.RetireAt
	}
	return r, nil
}

func (a *app) currentCertificate() (*certificate, error) {
	r, err := a.rollover()
	if err == nil && r.current == nil {
		err = a.missing(errNoCertificate)
	}
	return r.current, err
}

// ensure finds or creates the current certificate.
func (a *app) ensure(domain string) (c *certificate, created bool, err error) {
	store, err := a.certificates()
	if err != nil {
		return nil, false, err
	}
	pair, created, err := store.Ensure(domain)
	if err != nil {
		return nil, false, err
	}
	return &certificate{pair.Certificate, pair.Key, domain}, created, nil
}

// issuer is the built-in token issuer for these settings.
func (s *settings) issuer() (*auth.Issuer, error) { return s.issuerOf(s.certificate) }

func (s *settings) issuerOf(c *certificate) (*auth.Issuer, error) {
	return auth.NewIssuer(auth.IssuerConfig{
		Key: c.key, Certificate: c.Certificate, Realm: s.organization,
		TargetPrincipal: s.server.Principal, Authority: s.server.Authority,
	})
}
