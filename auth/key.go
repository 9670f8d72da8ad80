package auth

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1" // #nosec G505 -- x5t is SHA-1 by RFC 7515, section 4.1.7; here it is an index only
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Bounds of a key, in bits of the modulus. NIST SP 800-131A has 2048 as the
// least; the upper bound keeps one verification cheap.
const (
	MinKeyBits = 2048
	MaxKeyBits = 8192
)

// MaxCertificateSize bounds a certificate given to ParseCertificate, in bytes,
// DER or PEM. Ours: ten times what real ones have.
const MaxCertificateSize = 32 << 10

// Errors of certificates.
var (
	// ErrCertificate is wrapped by every error about a certificate that can't
	// be read or whose key is unfit.
	ErrCertificate = errors.New("certificate not acceptable")
	// ErrPeriod is returned for a period outside the certificate's validity.
	ErrPeriod = errors.New("period is not inside the certificate's validity")
)

// ParseCertificate reads one certificate, DER or PEM, and checks its key:
// RSA of 2048 to 8192 bits, with an odd exponent of at least 3.
//
// It builds no chain and asks nothing of issuer, extensions, signature
// algorithm or validity: a registered certificate is pinned, and real ones
// are self-signed, sometimes with SHA-1. PEM must hold exactly one
// certificate and nothing else. Every error wraps ErrCertificate.
func ParseCertificate(data []byte) (*x509.Certificate, error) {
	if len(data) > MaxCertificateSize {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrCertificate, MaxCertificateSize)
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
	if _, err := publicKey(cert); err != nil {
		return nil, err
	}
	return cert, nil
}

// publicKey returns the certificate's key if it is fit to verify tokens.
func publicKey(cert *x509.Certificate) (*rsa.PublicKey, error) {
	if cert == nil {
		return nil, fmt.Errorf("%w: none given", ErrCertificate)
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: key is %v, not RSA", ErrCertificate, cert.PublicKeyAlgorithm)
	}
	if bits := key.N.BitLen(); bits < MinKeyBits || bits > MaxKeyBits {
		return nil, fmt.Errorf("%w: key has %d bits, not %d to %d", ErrCertificate, bits, MinKeyBits, MaxKeyBits)
	}
	if key.E < 3 || key.E%2 == 0 {
		return nil, fmt.Errorf("%w: key has exponent %d, not an odd one from 3", ErrCertificate, key.E)
	}
	return key, nil
}

// CheckPeriod checks that a credential's start and end lie inside the
// certificate's validity, and in this order. It returns ErrPeriod if not.
//
// Source: New-MsolServicePrincipalCredential (read 2026-11).
func CheckPeriod(cert *x509.Certificate, start, end time.Time) error {
	if start.Before(cert.NotBefore) || end.After(cert.NotAfter) || !start.Before(end) {
		return ErrPeriod
	}
	return nil
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
