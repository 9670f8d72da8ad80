package main

import (
	"badgerelay/auth/authmetadata"
	"badgerelay/auth/authtest"
	"badgerelay/auth/certs"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// trusting returns a client that trusts the certificate in the file.
func trusting(t *testing.T, file string) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots(t, file)}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: testTimeout}
}

func TestMetadataTellsAgentsWhomToTalkTo(t *testing.T) {
	f := newFiles(t)
	certificate, key := f.pair(t, "relay")
	s := serve(t, f.base(t, "listen: {address: \"127.0.0.1:0\", tls: {certificate_file: "+certificate+", key_file: "+key+"}}\n"+
		"metadata: {address: \"127.0.0.1:0\"}\nauth: {authorities: [\"relay.example.com:8443\"], principal: 11111111-2222-3333-4444-555555555555}\n"))
	m, err := authmetadata.Fetch(t.Context(), trusting(t, certificate), "https://"+s.Metadata+"/metadata/json/1?realm=fabrikam.com")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(m.AllowedAudiences, " "), "11111111-2222-3333-4444-555555555555/relay.example.com:8443@fabrikam.com"; got != want {
		t.Errorf("audiences %s, want %s", got, want)
	}
	var relay string
	for _, e := range m.Endpoints {
		if e.Usage == "relay" {
			relay = e.Location
		}
	}
	if relay != "https://relay.example.com:8443" {
		t.Errorf("endpoint %q, want https://relay.example.com:8443", relay)
	}
}

func TestPublishedKeysArePickedUp(t *testing.T) {
	f := newFiles(t)
	der, err := os.ReadFile(f.rsaCertificate(t, "OAuthCert.cer"))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	document, err := authmetadata.Document{Realm: "fabrikam.com", Keys: []authmetadata.Key{authmetadata.SigningKey(certificate)}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	exchange := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(document) // the relay notices if it did not arrive
	}))
	defer exchange.Close()
	f.write(t, "exchange.crt", string(authtest.CertificatePEM(exchange.Certificate())))
	file := f.base(t, "auth: {follow_ca_file: "+f.path("exchange.crt")+"}\n")

	s := serve(t, file)
	want(t, 0, "is enrolled", "organization", "add", "fabrikam.com", "--metadata-url", exchange.URL, "--admin", s.Admin)
	s.log.wait(t, "published key registered")
	want(t, 0, certs.Thumbprint(certificate), "credential", "list", "--organization", "fabrikam.com", "--admin", s.Admin)

	want(t, 0, "is removed", "credential", "remove", "--organization", "fabrikam.com", certs.Thumbprint(certificate), "--admin", s.Admin)
	s.stop(t)
	s = serve(t, file) // the document still shows the key
	s.log.wait(t, "published key was removed before")
	want(t, 0, `"credentials": []`, "credential", "list", "--organization", "fabrikam.com", "--output", "json", "--admin", s.Admin)
	want(t, 0, "is registered", "credential", "add", "--organization", "fabrikam.com", "--certificate", f.path("OAuthCert.cer"), "--admin", s.Admin)
}
