package enrolment

import (
	"crypto/x509"
	"time"

	"badgerelay/auth/certs"
)

// Certificate is one of an organization's, with its key.
type Certificate struct {
	*x509.Certificate
	Pair   *certs.Pair
	Domain string
}

// Thumbprint is how Windows names a certificate.
func (c *Certificate) Thumbprint() string { return certs.Thumbprint(c.Certificate) }

// PublicKeySize is the key's size in bits.
func (c *Certificate) PublicKeySize() int { return c.Pair.Key.N.BitLen() }

// Rollover is the certificates that there are; nil: none.
type Rollover struct {
	Current, Next, Previous *Certificate
	Effective               time.Time // of Next
	Retire                  time.Time // of Previous
}

// Certificates opens the store of certificates for a change.
func (d Directory) Certificates() (*certs.Store, error) {
	if err := d.make(); err != nil {
		return nil, err
	}
	return certs.OpenStore(d.path(certificateDir))
}

// Rollover reads the certificates.
func (d Directory) Rollover() (r Rollover, err error) {
	if there, err := exists(d.path(certificateDir)); !there {
		return r, err
	}
	store, err := d.Certificates()
	if err != nil {
		return r, err
	}
	state, err := store.State()
	if err != nil {
		return r, err
	}
	for _, slot := range []struct {
		from *certs.Slot
		to   **Certificate
	}{{state.Current, &r.Current}, {state.Next, &r.Next}, {state.Previous, &r.Previous}} {
		if slot.from == nil {
			continue
		}
		pair, err := store.Load(slot.from)
		if err != nil {
			return r, err
		}
		*slot.to = &Certificate{pair.Certificate, pair, slot.from.Domain}
	}
	if state.Next != nil {
		r.Effective = state.Next.EffectiveAt
	}
	if state.Previous != nil {
		r.Retire = state.Previous.RetireAt
	}
	return r, nil
}

// Current reads the certificate that signs. None is ErrNoCertificate.
func (d Directory) Current() (*Certificate, error) {
	r, err := d.Rollover()
	if err == nil && r.Current == nil {
		err = ErrNoCertificate
	}
	return r.Current, err
}

// Ensure finds or makes the current certificate.
func (d Directory) Ensure(domain string) (c *Certificate, created bool, err error) {
	store, err := d.Certificates()
	if err != nil {
		return nil, false, err
	}
	pair, created, err := store.Ensure(domain)
	if err != nil {
		return nil, false, err
	}
	return &Certificate{pair.Certificate, pair, domain}, created, nil
}

// Replace makes a certificate for another domain than the current one's, which becomes
// the previous one. While there is a previous one in its overlap it is certs.ErrOverlap.
func (d Directory) Replace(domain string) (*Certificate, error) {
	store, err := d.Certificates()
	if err != nil {
		return nil, err
	}
	state, err := store.State()
	if err != nil {
		return nil, err
	}
	if state.Previous.InOverlap(time.Now()) {
		return nil, certs.ErrOverlap
	}
	if _, err := store.Stage(domain, time.Now(), true); err != nil {
		return nil, err
	}
	if _, err := store.Publish(false); err != nil {
		return nil, err
	}
	return d.Current()
}
