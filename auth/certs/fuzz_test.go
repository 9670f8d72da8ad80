package certs_test

import (
	"badgerelay/auth/authtest"
	"badgerelay/auth/certs"
	"crypto/rsa"
	"errors"
	"testing"
	"time"
)

func FuzzParse(f *testing.F) {
	key := authtest.NewKey(realm, time.Now())
	f.Add(key.Certificate.Raw)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add(certify(&rsa.PublicKey{N: modulus(1024), E: 2}, 0).Raw)
	f.Fuzz(func(t *testing.T, data []byte) {
		cert, err := certs.Parse(data)
		if err != nil {
			if !errors.Is(err, certs.ErrCertificate) {
				t.Fatalf("got %v, want it to wrap %v", err, certs.ErrCertificate)
			}
			return
		}
		public, ok := cert.PublicKey.(*rsa.PublicKey)
		if !ok || public.N.BitLen() < 2048 || public.N.BitLen() > 8192 || public.E < 3 || public.E%2 == 0 {
			t.Fatalf("accepted key %v", cert.PublicKey)
		}
	})
}
