package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"badgerelay/apns/apnstest"
	"badgerelay/cmd/internal/configfile"
)

// keyFiles is where the relay finds what it needs.
type keyFiles struct {
	signing string // the .p8; empty: the caller has it
	ca      string // the authority to trust; empty: nowhere but on the management interface
	public  *ecdsa.PublicKey

	authority *apnstest.Authority // that was kept; nil: a new one
}

// keys reads the key that provider tokens are verified with, or makes one.
func (o *options) keys() (keyFiles, error) {
	if o.generateKey == "" {
		public, err := readPublicKey(o.publicKey)
		return keyFiles{ca: o.caFile, public: public}, err
	}
	if err := os.MkdirAll(o.generateKey, 0o700); err != nil {
		return keyFiles{}, fmt.Errorf("make directory for the key: %w", err)
	}
	k := keyFiles{signing: filepath.Join(o.generateKey, "AuthKey_"+o.keyID+".p8"), ca: o.caFile}
	if k.ca == "" {
		k.ca = filepath.Join(o.generateKey, authorityFile)
	}
	public, err := readPublicKey(k.signing)
	if errors.Is(err, fs.ErrNotExist) {
		public, err = apnstest.WriteSigningKey(k.signing)
	}
	if err != nil {
		return keyFiles{}, err
	}
	k.public = public
	k.authority, err = keptAuthority(o.generateKey)
	return k, err
}

// Files of the authority in the directory of --generate-key.
const (
	authorityFile    = "apnssim-ca.pem"
	authorityKeyFile = "apnssim-ca.key"
)

// keptAuthority returns the authority of the directory, or makes one there, so
// that relays trust the simulator's next start, too.
func keptAuthority(dir string) (*apnstest.Authority, error) {
	certificate, key := filepath.Join(dir, authorityFile), filepath.Join(dir, authorityKeyFile)
	kept, err := readAuthority(certificate, key)
	if !errors.Is(err, fs.ErrNotExist) {
		return kept, err
	}
	made, err := apnstest.NewAuthority()
	if err != nil {
		return nil, err
	}
	text, err := made.KeyPEM()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(key, text, 0o600); err != nil {
		return nil, fmt.Errorf("keep the authority's key: %w", err)
	}
	return made, writeAuthority(certificate, made)
}

// readAuthority fails with fs.ErrNotExist where one of the files is not there.
func readAuthority(certificate, key string) (*apnstest.Authority, error) {
	certText, err := os.ReadFile(certificate)
	if err != nil {
		return nil, fmt.Errorf("read the authority: %w", err)
	}
	keyText, err := os.ReadFile(key)
	if err != nil {
		return nil, fmt.Errorf("read the authority: %w", err)
	}
	kept, err := apnstest.ReadAuthority(certText, keyText)
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w; remove both, and others are made", certificate, key, err)
	}
	return kept, nil
}

// readPublicKey reads a P-256 public key, or that of a .p8.
func readPublicKey(path string) (*ecdsa.PublicKey, error) {
	data, err := configfile.ReadNamed(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("read key %s: the file is not PEM", path)
	}
	public, err := publicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	if public.Curve != elliptic.P256() {
		return nil, fmt.Errorf("read key %s: provider tokens need a P-256 key", path)
	}
	return public, nil
}

func publicKey(der []byte) (*ecdsa.PublicKey, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if private, ok := key.(*ecdsa.PrivateKey); ok {
			return &private.PublicKey, nil
		}
	}
	if key, err := x509.ParsePKIXPublicKey(der); err == nil {
		if public, ok := key.(*ecdsa.PublicKey); ok {
			return public, nil
		}
	}
	return nil, errors.New("neither a public key nor a .p8 of an elliptic curve")
}

// writeAuthority writes the certificate to trust. It holds no secret.
func writeAuthority(path string, a *apnstest.Authority) error {
	if path == "" {
		return nil
	}
	if err := os.WriteFile(path, a.PEM(), 0o644); err != nil {
		return fmt.Errorf("write authority: %w", err)
	}
	return nil
}
