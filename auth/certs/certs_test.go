package certs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"

	"badgerelay/auth"
	"badgerelay/auth/authtest"
	"badgerelay/auth/certs"
)

const realm = "fabrikam.com"

// certify makes a certificate of any public key, signed by another's.
func certify(public any, algorithm x509.SignatureAlgorithm) *x509.Certificate {
	signer := authtest.NewKey("signer", time.Now())
	return authtest.Issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: realm}, SignatureAlgorithm: algorithm,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, signer.Certificate, public, signer.Private)
}

// modulus returns an odd number of exactly this many bits.
func modulus(bits int) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return n.Add(n, big.NewInt(1))
}

func TestKeyRules(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		public any
		good   bool
	}{
		{"2047 bits", &rsa.PublicKey{N: modulus(2047), E: 65537}, false},
		{"2048 bits", &rsa.PublicKey{N: modulus(2048), E: 65537}, true},
		{"8192 bits", &rsa.PublicKey{N: modulus(8192), E: 65537}, true},
		{"8193 bits", &rsa.PublicKey{N: modulus(8193), E: 65537}, false},
		{"e 1", &rsa.PublicKey{N: modulus(2048), E: 1}, false},
		{"e 2", &rsa.PublicKey{N: modulus(2048), E: 2}, false},
		{"e 3", &rsa.PublicKey{N: modulus(2048), E: 3}, true},
		{"e even", &rsa.PublicKey{N: modulus(2048), E: 65536}, false},
		{"EC", &ec.PublicKey, false},
	} {
		cert := certify(test.public, x509.SHA256WithRSA)
		_, err := certs.Parse(cert.Raw)
		if (err == nil) != test.good || (err != nil && !errors.Is(err, certs.ErrCertificate)) {
			t.Errorf("%s: got %v, want good %v", test.name, err, test.good)
		}
		// The same rules hold for what a registry hands out.
		key := &authtest.Key{Private: authtest.NewKey(realm, time.Now()).Private, Certificate: cert}
		keys := &authtest.Keys{}
		keys.Set(key.Credential("c1", 7, realm))
		v, err := auth.NewValidator(auth.Config{Keys: keys, Principal: authtest.Principal, Authorities: []string{authtest.Authority}})
		if err != nil {
			t.Fatal(err)
		}
		want := auth.ReasonKeyUnfit
		if test.good {
			want = auth.ReasonSignature
		}
		_, err = v.Validate(t.Context(), authtest.Good(key, realm, time.Now()))
		if refusal, ok := errors.AsType[*auth.TokenError](err); !ok || refusal.Reason != want {
			t.Errorf("%s: got %v, want a refusal for %v", test.name, err, want)
		}
	}
}

func TestParseCertificateForms(t *testing.T) {
	key := authtest.NewKey(realm, time.Now())
	text := authtest.CertificatePEM(key.Certificate)
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key.Private)})
	sha1 := certify(&key.Private.PublicKey, x509.SHA1WithRSA)
	for _, test := range []struct {
		name string
		data []byte
		good bool
	}{
		{"DER", key.Certificate.Raw, true},
		{"PEM", text, true},
		{"PEM among white space", append([]byte("\r\n "), append(text, "\n\n"...)...), true},
		{"signed with SHA-1", sha1.Raw, true},
		{"empty", nil, false},
		{"two", append(append([]byte(nil), text...), text...), false},
		{"with its private key", append(append([]byte(nil), text...), private...), false},
		{"a private key", private, false},
		{"DER with more behind", append(append([]byte(nil), key.Certificate.Raw...), 0), false},
		{"large", make([]byte, certs.MaxSize+1), false},
	} {
		cert, err := certs.Parse(test.data)
		if (err == nil) != test.good || (err != nil && !errors.Is(err, certs.ErrCertificate)) {
			t.Errorf("%s: got %v and %v, want good %v", test.name, cert, err, test.good)
		}
	}
}

func TestReasons(t *testing.T) {
	labels := make(map[string]bool)
	for _, r := range auth.Reasons() {
		err := &auth.TokenError{Reason: r}
		if r.String() == "" || labels[r.String()] || err.Error() == "" || r.Category().Category() != r.Category() {
			t.Errorf("%d: got label %q, text %q, category %v", r, r, err, r.Category())
		}
		labels[r.String()] = true
	}
}
