package apns

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sideshow/apns2/certificate"
	pkcs12 "software.sslmate.com/src/go-pkcs12"
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

// LoadCertificate reads a client certificate of Apple's with its key from a
// PKCS #12 (.p12, .pfx) or a PEM file. password is "" for none.
func LoadCertificate(file, password string) (*tls.Certificate, error) {
	load := certificate.FromPemFile
	switch strings.ToLower(filepath.Ext(file)) {
	case ".p12", ".pfx":
		load = loadPKCS12
	}
	cert, err := load(file, password)
	if err != nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	return &cert, nil
}

// loadPKCS12 reads what the macOS keychain exports and what OpenSSL 3 writes;
// certificate.FromP12File knows the former only.
func loadPKCS12(file, password string) (tls.Certificate, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, leaf, chain, err := pkcs12.DecodeChain(data, password)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %w", file, err)
	}
	cert := tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
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
