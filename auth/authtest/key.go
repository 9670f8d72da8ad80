// Package authtest makes keys, good tokens in every form that real producers
// use, and hostile tokens, each with the reason for which it must be refused.
//
// It is for tests and demonstrations. Keys are made at run time, once per
// process and name, and nothing is kept on disk. It does not validate.
package authtest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/certs"
)

// Principal and Authority are the relay's in everything this package makes.
const (
	Principal = auth.PrincipalSharePoint
	Authority = "relay.example.com:8443"
)

// Key is an organization's key with its certificate.
type Key struct {
	Private     *rsa.PrivateKey
	Certificate *x509.Certificate
}

var keys struct {
	sync.Mutex
	private map[string]*rsa.PrivateKey
}

// privateKey returns the process's RSA key of this name, 2048 bits.
func privateKey(name string) *rsa.PrivateKey {
	keys.Lock()
	defer keys.Unlock()
	if key, ok := keys.private[name]; ok {
		return key
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // the system's random source can't fail
	}
	if keys.private == nil {
		keys.private = make(map[string]*rsa.PrivateKey)
	}
	keys.private[name] = key
	return key
}

// NewKey returns the key called name with a fresh certificate, valid from a
// day before now until five years after. The same name has the same RSA key
// for the whole process, so that tests need not wait for one each.
func NewKey(name string, now time.Time) *Key {
	return NewKeyValid(name, now.Add(-24*time.Hour), now.AddDate(5, 0, 0))
}

// NewKeyValid is NewKey with the validity of the certificate given.
func NewKeyValid(name string, notBefore, notAfter time.Time) *Key {
	return Certify(privateKey(name), name, notBefore, notAfter)
}

// Certify makes a self-signed certificate for private as real on-premises
// ones are: no authority, EKU serverAuth only, no subject key identifier.
func Certify(private *rsa.PrivateKey, name string, notBefore, notAfter time.Time) *Key {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(notBefore.Unix()),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotBefore:    notBefore,
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	return &Key{Private: private, Certificate: Issue(template, template, &private.PublicKey, private)}
}

// Credential returns the key as organization's registered credential.
func (k *Key) Credential(id string, organizationID int64, organization string) auth.Credential {
	return auth.Credential{
		ID: id, OrganizationID: organizationID, Organization: organization, Enabled: true,
		Certificate: k.Certificate, StartAt: k.Certificate.NotBefore, EndAt: k.Certificate.NotAfter,
	}
}

// Keys is an auth.Keys in memory. The zero value is empty. It is safe for
// concurrent use.
type Keys struct {
	mu          sync.Mutex
	credentials []auth.Credential
	err         error
	lookups     int
}

// Set replaces all credentials.
func (k *Keys) Set(credentials ...auth.Credential) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.credentials = credentials
}

// Fail makes look-ups fail with err; nil ends that.
func (k *Keys) Fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

// Lookups returns how many there were.
func (k *Keys) Lookups() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lookups
}

// CredentialsByX5T implements auth.Keys.
func (k *Keys) CredentialsByX5T(_ context.Context, x5t [20]byte) ([]auth.Credential, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lookups++
	if k.err != nil {
		return nil, k.err
	}
	var found []auth.Credential
	for _, c := range k.credentials {
		if c.Certificate != nil && certs.X5T(c.Certificate) == x5t {
			found = append(found, c)
		}
	}
	return found, nil
}
