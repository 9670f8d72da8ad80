package authmetadata_test

import (
	"badgerelay/auth/authmetadata"
	"badgerelay/auth/authtest"
	"badgerelay/auth/certs"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

func FuzzParse(f *testing.F) {
	m := document(authmetadata.SigningKey(authtest.NewKey(realm, time.Now()).Certificate))
	good, err := m.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"keys":[{"usage":"signing","keyinfo":null,"keyvalue":{"type":"x509Certificate","value":"AA=="}}],"x":[1e9,-0.5,true,false]}`))
	f.Add([]byte(`{"id":"\ud83d\ude00\u0000","realm":"\"\\\/\b\f\n\r\t"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := authmetadata.Parse(data)
		if err != nil {
			if !errors.Is(err, authmetadata.ErrDocument) {
				t.Fatalf("got %v, want it to wrap %v", err, authmetadata.ErrDocument)
			}
			return
		}
		if !json.Valid(data) {
			t.Fatal("accepted what is not JSON")
		}
		for _, cert := range m.SigningCertificates() {
			if _, err := certs.Parse(cert.Raw); err != nil {
				t.Fatalf("handed out a certificate that is refused: %v", err)
			}
		}
		again, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > authmetadata.MaxSize {
			return // escapes may make it longer
		}
		if _, err := authmetadata.Parse(again); err != nil {
			t.Fatalf("does not read what it wrote: %v", err)
		}
	})
}
