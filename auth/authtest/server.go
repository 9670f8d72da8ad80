package authtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"time"
)

// Issue makes a certificate of the template for a public key, signed by parent's
// key: by itself, if parent is the template. A template without a serial number gets
// one.
func Issue(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	var err error
	if template.SerialNumber == nil {
		if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
			panic(err) // the system's random source can't fail
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		panic(err) // the template is ours
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return certificate
}

// Server is a server's certificate with its key.
type Server struct {
	Certificate *x509.Certificate
	Key         *ecdsa.PrivateKey
}

// NewServer makes a certificate called name for hosts, which are names and addresses,
// valid from two days before now until end. It is its own authority.
func NewServer(name string, end time.Time, hosts ...string) *Server {
	return newServer(nil, name, end, hosts)
}

// Issue is NewServer for a certificate that s has signed.
func (s *Server) Issue(name string, hosts ...string) *Server {
	return newServer(s, name, s.Certificate.NotAfter, hosts)
}

func newServer(authority *Server, name string, end time.Time, hosts []string) *Server {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // the system's random source can't fail
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().AddDate(0, 0, -2), NotAfter: end,
		IsCA: authority == nil, BasicConstraintsValid: true,
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	if authority == nil {
		authority = &Server{template, key}
	}
	return &Server{Issue(template, authority.Certificate, &key.PublicKey, authority.Key), key}
}

// TLS returns what a server shows.
func (s *Server) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{s.Certificate.Raw}, PrivateKey: s.Key, Leaf: s.Certificate}
}

// Pool trusts it.
func (s *Server) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate)
	return pool
}

// PEM returns the certificate as text.
func (s *Server) PEM() []byte { return CertificatePEM(s.Certificate) }

// CertificatePEM returns a certificate as text.
func CertificatePEM(certificate *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
}

// KeyPEM returns the key as text.
func (s *Server) KeyPEM() []byte { return KeyPEM(s.Key) }

// KeyPEM returns a key as text: PKCS #8.
func KeyPEM(key crypto.PrivateKey) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err) // every key of ours has this form
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Write writes certificate and key in PEM, for the owner alone.
func (s *Server) Write(certificate, key string) error {
	if err := os.WriteFile(certificate, s.PEM(), 0o600); err != nil {
		return err
	}
	return os.WriteFile(key, s.KeyPEM(), 0o600)
}
