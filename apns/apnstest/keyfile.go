package apnstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// WriteSigningKey makes a key that signs provider tokens, in the form Apple hands
// them out in: PKCS #8 in PEM (Apple, "Establishing a token-based connection to
// APNs", read 2026-11). It never writes over a file.
func WriteSigningKey(path string) (*ecdsa.PublicKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	text, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write signing key: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("write signing key: %w", err)
	}
	return &key.PublicKey, nil
}

// PEM returns the authority's certificate as text, for those who are to trust it.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// KeyPEM returns the authority's private key as text, to be kept.
func (a *Authority) KeyPEM() ([]byte, error) { return keyPEM(a.key) }

// ReadAuthority returns an authority that was kept as PEM and KeyPEM return it. It
// fails where they don't belong together.
func ReadAuthority(certificate, key []byte) (*Authority, error) {
	certBlock, _ := pem.Decode(certificate)
	keyBlock, _ := pem.Decode(key)
	if certBlock == nil || keyBlock == nil {
		return nil, errors.New("read authority: a file is not PEM")
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read authority key: %w", err)
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !cert.IsCA || !private.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("read authority: key and certificate don't belong together")
	}
	return &Authority{private, cert}, nil
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
