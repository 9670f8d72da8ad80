package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // #nosec G505 -- RFC 5280, section 4.2.1.2: the subject key identifier is a SHA-1
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"badgerelay/auth"
)

var (
	errNoCertificate = errors.New("there is no certificate; run 'badgeagent cert ensure --domain ...'")
	errNotStaged     = errors.New("no next certificate is staged; run 'badgeagent cert stage'")
)

// Files of the certificate store, each a PEM certificate and its key.
const (
	certificateDir  = "certificates"
	currentFile     = certificateDir + "/current.pem"
	nextFile        = certificateDir + "/next.pem"
	previousFile    = certificateDir + "/previous.pem"
	effectiveFile   = certificateDir + "/next.json"
	certificateLife = 5 * 365 * 24 * time.Hour // as Exchange's own
)

// certificate is one certificate and its key.
type certificate struct {
	*x509.Certificate
	key *rsa.PrivateKey
}

// Thumbprint is how Windows names a certificate.
func (c *certificate) Thumbprint() string { return auth.Thumbprint(c.Certificate) }

// PublicKeySize is the key's size in bits.
func (c *certificate) PublicKeySize() int { return c.key.N.BitLen() }

// fit says whether tokens may be signed with it now.
func (c *certificate) fit() bool {
	now := time.Now()
	return c.PublicKeySize() >= auth.MinKeyBits && !now.Before(c.NotBefore) && now.Before(c.NotAfter)
}

// rollover is what the store holds; nil: none.
type rollover struct {
	current, next, previous *certificate
	effective               time.Time // of next
}

type effectiveNote struct {
	Effective time.Time `json:"effective"`
}

func (a *app) rollover() (r rollover, err error) {
	for name, c := range map[string]**certificate{currentFile: &r.current, nextFile: &r.next, previousFile: &r.previous} {
		if *c, err = a.loadCertificate(name); err != nil {
			return r, err
		}
	}
	var note effectiveNote
	_, err = a.load(effectiveFile, &note)
	r.effective = note.Effective
	return r, err
}

func (a *app) currentCertificate() (*certificate, error) {
	c, err := a.loadCertificate(currentFile)
	if err == nil && c == nil {
		err = errNoCertificate
	}
	return c, err
}

func (a *app) loadCertificate(name string) (*certificate, error) {
	path := filepath.Join(a.dir, name)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	certBlock, rest := pem.Decode(content)
	keyBlock, _ := pem.Decode(rest)
	if certBlock == nil || keyBlock == nil {
		return nil, fmt.Errorf("%s holds no certificate with its key", path)
	}
	cert, err := auth.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	key, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok || !private.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s: the key is not the certificate's", path)
	}
	return &certificate{cert, private}, nil
}

// createCertificate makes the current certificate. One that was there, unfit
// to sign, becomes the previous one.
func (a *app) createCertificate(name string) (*certificate, error) {
	c, err := newCertificate(name)
	if err != nil {
		return nil, err
	}
	old, err := a.currentCertificate()
	if err == nil {
		err = a.storeCertificate(previousFile, old)
	}
	if err != nil && !errors.Is(err, errNoCertificate) {
		return nil, err
	}
	return c, a.storeCertificate(currentFile, c)
}

// stage makes the next certificate, for the same name as the current one.
func (a *app) stage(effective time.Time) error {
	current, err := a.currentCertificate()
	if err != nil {
		return err
	}
	next, err := newCertificate(current.Subject.CommonName)
	if err != nil {
		return err
	}
	return errors.Join(a.store(effectiveFile, effectiveNote{effective.UTC()}), a.storeCertificate(nextFile, next))
}

// publishNext copies before it removes, so that whenever it is cut off there
// is a current certificate and doing it again completes it.
func (a *app) publishNext() error {
	r, err := a.rollover()
	if err != nil {
		return err
	}
	if r.current != nil && !r.current.Equal(r.next.Certificate) {
		if err := a.storeCertificate(previousFile, r.current); err != nil {
			return err
		}
	}
	if err := a.storeCertificate(currentFile, r.next); err != nil {
		return err
	}
	return errors.Join(os.Remove(filepath.Join(a.dir, nextFile)), os.Remove(filepath.Join(a.dir, effectiveFile)))
}

func (a *app) storeCertificate(name string, c *certificate) error {
	key, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		return err
	}
	var content bytes.Buffer
	// Writing to memory does not fail.
	_ = pem.Encode(&content, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	_ = pem.Encode(&content, &pem.Block{Type: "PRIVATE KEY", Bytes: key})
	return writeFile(filepath.Join(a.dir, name), content.Bytes(), 0o600)
}

// newCertificate makes a self-signed certificate such as the seed's script
// asks Exchange for: RSA 2048 with a subject key identifier.
func newCertificate(name string) (*certificate, error) {
	key, err := rsa.GenerateKey(rand.Reader, auth.MinKeyBits)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	ski := sha1.Sum(x509.MarshalPKCS1PublicKey(&key.PublicKey)) // #nosec G401 -- see the import
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name, OrganizationalUnit: []string{"Exchange S2S OAuth"}}, DNSNames: []string{name},
		NotBefore: now.Add(-time.Hour).Truncate(time.Second), NotAfter: now.Add(certificateLife).Truncate(time.Second),
		KeyUsage: x509.KeyUsageDigitalSignature, SubjectKeyId: ski[:], BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &certificate{cert, key}, err
}

// issuer is the built-in token issuer for these settings.
func (s *settings) issuer() (*auth.Issuer, error) {
	return auth.NewIssuer(auth.IssuerConfig{
		Key: s.certificate.key, Certificate: s.certificate.Certificate, Realm: s.organization,
		TargetPrincipal: s.server.Principal, Authority: s.server.Authority,
	})
}
