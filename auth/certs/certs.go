// Package certs reads the certificates that sign tokens, says which keys are fit
// and by what they are named, and keeps an organization's own certificate
// through its roll-over, in a [Store]. A certificate is pinned: no chain is built.
package certs

import (
	"badgerelay/auth/internal/strict"
	"bytes"
	"crypto/rsa"
	"crypto/sha1" // #nosec G505 -- x5t is SHA-1 by RFC 7515, section 4.1.7; here it is an index only
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Bounds of a key, in bits of the modulus. NIST SP 800-131A has 2048 as the
// least; the upper bound keeps one verification cheap.
const (
	MinKeyBits = 2048
	MaxKeyBits = 8192
)

// MaxSize bounds a certificate given to Parse, in bytes,
// DER or PEM. Ours: ten times what real ones have.
const MaxSize = 32 << 10

// ErrCertificate is wrapped by every error about a certificate that can't be read or
// whose key is unfit.
var ErrCertificate = errors.New("certificate not acceptable")

// ErrKey is wrapped by those about the key of a certificate that can be read. It wraps
// ErrCertificate.
var ErrKey = fmt.Errorf("%w: key", ErrCertificate)

// Parse reads one certificate, DER or PEM, and checks its key:
// RSA of 2048 to 8192 bits, with an odd exponent of at least 3.
//
// It builds no chain and asks nothing of issuer, extensions, signature
// algorithm or validity: a registered certificate is pinned, and real ones
// are self-signed, sometimes with SHA-1. PEM must hold exactly one
// certificate and nothing else. Every error wraps ErrCertificate.
func Parse(data []byte) (*x509.Certificate, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrCertificate, MaxSize)
	}
	der := data
	if text := bytes.TrimSpace(data); bytes.HasPrefix(text, []byte("-----BEGIN ")) {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%w: PEM does not hold a certificate", ErrCertificate)
		}
		if len(bytes.TrimSpace(rest)) > 0 {
			return nil, fmt.Errorf("%w: PEM holds more than one certificate", ErrCertificate)
		}
		der = block.Bytes
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	if _, err := PublicKey(cert); err != nil {
		return nil, err
	}
	return cert, nil
}

// PublicKey returns the certificate's key if it is fit to verify tokens. Otherwise the
// error wraps ErrKey.
func PublicKey(cert *x509.Certificate) (*rsa.PublicKey, error) {
	if cert == nil {
		return nil, fmt.Errorf("%w: none given", ErrCertificate)
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w is %v, not RSA", ErrKey, cert.PublicKeyAlgorithm)
	}
	if bits := key.N.BitLen(); bits < MinKeyBits || bits > MaxKeyBits {
		return nil, fmt.Errorf("%w has %d bits, not %d to %d", ErrKey, bits, MinKeyBits, MaxKeyBits)
	}
	if key.E < 3 || key.E%2 == 0 {
		return nil, fmt.Errorf("%w has exponent %d, not an odd one from 3", ErrKey, key.E)
	}
	return key, nil
}

// X5T returns the SHA-1 of the certificate's DER: the index of keys.
func X5T(cert *x509.Certificate) [20]byte { return sha1.Sum(cert.Raw) } // #nosec G401 -- see the import

// FormatX5T returns x5t as a token's header has it: base64url, unpadded.
func FormatX5T(x5t [20]byte) string { return base64.RawURLEncoding.EncodeToString(x5t[:]) }

// Thumbprint returns the SHA-1 of the certificate's DER as Windows prints it:
// 40 upper-case hexadecimal digits.
func Thumbprint(cert *x509.Certificate) string { return fmt.Sprintf("%X", X5T(cert)) }

// KeySHA256 returns the SHA-256 of the certificate's subject public key info:
// the identity of the key.
func KeySHA256(cert *x509.Certificate) [32]byte { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// DecodeThumbprint decodes text, an x5t or x5t#S256, into dst, which it must fill exactly. Some
// producers leave one padding character at the end, and some write base64 with
// its other two characters: it is an index, and both ways mean the same bytes.
func DecodeThumbprint(text string, dst []byte) bool {
	text = strings.TrimSuffix(text, "=")
	if strings.ContainsAny(text, "+/") && !strings.ContainsAny(text, "-_") {
		text = standardToURL.Replace(text)
	}
	raw, err := strict.DecodeBase64URL(text)
	return err == nil && copy(dst, raw) == len(dst) && len(raw) == len(dst)
}

// standardToURL turns base64 into base64url.
var standardToURL = strings.NewReplacer("+", "-", "/", "_")
