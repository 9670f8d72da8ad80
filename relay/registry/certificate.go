package registry

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"time"

	"badgerelay/auth"
)

// MaxCertificateSize is the largest certificate taken, in bytes of DER or PEM;
// contract, badgerelay.v1.AddCredentialRequest.certificate.
const MaxCertificateSize = 16 << 10

// parse returns the credential that c describes, without id, organization and
// time of creation. What is wrong with it is an *InvalidError.
//
// No chain is built and neither key usage nor signature is looked at: the
// certificate is pinned, and real ones are self-signed, some with SHA-1.
func (c NewCredential) parse() (Credential, error) {
	if len(c.Certificate) > MaxCertificateSize {
		return Credential{}, &InvalidError{"certificate", "is larger than 16 KiB"}
	}
	cert, err := parseCertificate(c.Certificate)
	if err != nil {
		return Credential{}, &InvalidError{"certificate", "is not one X.509 certificate in DER or PEM: " + err.Error()}
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return Credential{}, &InvalidError{"certificate", "has no RSA key"}
	}
	if n := key.N.BitLen(); n < 2048 || n > 8192 {
		return Credential{}, &InvalidError{"certificate", "has a key that is not 2048 to 8192 bits"}
	}
	if key.E < 3 || key.E%2 == 0 {
		return Credential{}, &InvalidError{"certificate", "has a key with an exponent below 3 or even"}
	}
	// Encoded anew, so that two spellings of one key have one identity.
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return Credential{}, &InvalidError{"certificate", "has a key that can't be encoded: " + err.Error()}
	}
	start, end, err := c.window(cert)
	if err != nil {
		return Credential{}, err
	}
	return Credential{
		Credential: auth.Credential{Certificate: cert, StartAt: start, EndAt: end},
		X5T:        sha1.Sum(cert.Raw), KeySHA256: sha256.Sum256(spki),
	}, nil
}

// window returns the start and the end; both lie inside the certificate's
// validity, as for New-MsolServicePrincipalCredential (read 2026-11).
func (c NewCredential) window(cert *x509.Certificate) (start, end time.Time, err error) {
	start, end = c.StartAt, c.EndAt
	if start.IsZero() {
		start = cert.NotBefore
	}
	if end.IsZero() {
		end = cert.NotAfter
	}
	start, end = fromMillis(start.UnixMilli()), fromMillis(end.UnixMilli())
	switch {
	case start.Before(cert.NotBefore):
		return start, end, &InvalidError{"start_at", "is before the certificate's NotBefore, " + rfc3339(cert.NotBefore)}
	case end.After(cert.NotAfter):
		return start, end, &InvalidError{"end_at", "is after the certificate's NotAfter, " + rfc3339(cert.NotAfter)}
	case !start.Before(end):
		return start, end, &InvalidError{"end_at", "is not after the start, " + rfc3339(start)}
	}
	return start, end, nil
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// parseCertificate reads DER, or PEM that holds nothing but one certificate.
func parseCertificate(data []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(data)
	if block == nil {
		return x509.ParseCertificate(data)
	}
	if block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, &InvalidError{"PEM", "holds something else than one certificate"}
	}
	return x509.ParseCertificate(block.Bytes)
}

// thumbprint returns the SHA-1 that 40 hexadecimal digits say; nil for others.
func thumbprint(s string) []byte {
	if raw, err := hex.DecodeString(s); err == nil && len(raw) == sha1.Size {
		return raw
	}
	return nil
}

// fromMillis returns the time a database holds.
func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
