package rig

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"badgerelay/apns/apnstest"
	"badgerelay/auth"
	"badgerelay/cmd/internal/rig/names"
)

// keys are everything secret and everything trusted, made for one rig.
type keys struct {
	public    []byte // of the .p8 key: PKIX, DER
	authority []byte // of the relay's certificate, DER
}

// The files of a rig's directory.
const (
	fileRelayCertificate = "relay.crt"
	fileRelayKey         = "relay.key"
	fileProviderKey      = "provider.p8"
	fileApple            = "apple.crt" // the authority of the simulated Apple
	fileConfig           = "badgerelay.yaml"
	fileSocket           = "admin.sock"
	dirRegistry          = "registry"
	fileRegistry         = "registry.db" // in dirRegistry
	fileLog              = "relay.log"
	fileClock            = "clock"
	fileDisk             = "disk" // the small file system
)

// makeKeys makes the provider key and the relay's certificate.
func makeKeys(dir string) (*keys, error) {
	k := &keys{}
	provider, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make provider key: %w", err)
	}
	if k.public, err = x509.MarshalPKIXPublicKey(&provider.PublicKey); err != nil {
		return nil, fmt.Errorf("encode provider key: %w", err)
	}
	if err := writeKey(filepath.Join(dir, fileProviderKey), provider); err != nil {
		return nil, err
	}
	authority, err := apnstest.NewAuthority()
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	k.authority = authority.CertificateDER()
	pair, err := authority.ServerCertificate(time.Now().AddDate(1, 0, 0), names.Authority, "127.0.0.1")
	if err != nil {
		return nil, fmt.Errorf("make the relay's certificate: %w", err)
	}
	if err := writePEM(filepath.Join(dir, fileRelayCertificate), "CERTIFICATE", pair.Certificate[0]); err != nil {
		return nil, err
	}
	if err := writeKey(filepath.Join(dir, fileRelayKey), pair.PrivateKey); err != nil {
		return nil, err
	}
	return k, nil
}

// Token signs a token of the first organization with its current certificate.
func (r *Rig) Token(ctx context.Context) (string, error) {
	o := r.Organizations[0]
	pair, err := o.store.Current()
	if err != nil {
		return "", err
	}
	issuer, err := auth.NewIssuer(auth.IssuerConfig{
		Key: pair.Key, Certificate: pair.Certificate, Realm: o.Name,
		TargetPrincipal: names.Principal, Authority: names.Authority,
	})
	if err != nil {
		return "", fmt.Errorf("make the token issuer: %w", err)
	}
	token, _, err := issuer.Token(ctx, "")
	return token, err
}

func writeKey(path string, key crypto.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	return writePEM(path, "PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("write key or certificate: %w", err)
	}
	return nil
}
