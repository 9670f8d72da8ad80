package operator

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"badgerelay/auth/authtest"
	"badgerelay/cmd/internal/command"
)

func TestCertificatesThatAreMostOftenTheWrongFile(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		name, common string
		hosts        []string
		ends         time.Duration
		want         string // part of each doubt, by semicolons
	}{
		{"Exchange's", "Microsoft Exchange Server Auth Certificate", nil, time.Hour, ""},
		{"badgeagent's", "Exchange S2S OAuth", nil, time.Hour, ""},
		{"the organization's", "Fabrikam.com", nil, time.Hour, ""},
		{"a host of it", "mail.fabrikam.com", nil, time.Hour, ""},
		{"its parent's", "", []string{"*.com.example", "fabrikam.com"}, time.Hour, ""},
		{"another's", "contoso.com", nil, time.Hour, "names contoso.com, not fabrikam.com"},
		{"one that ends alike", "notfabrikam.com", nil, time.Hour, "names notfabrikam.com"},
		{"a host of another", "Mail", []string{"mail.contoso.com"}, time.Hour, "names mail.contoso.com"},
		{"an expired one", "fabrikam.com", nil, -time.Hour, "expired on"},
		{"an expired one of another", "contoso.com", nil, -time.Hour, "expired on;names contoso.com"},
	} {
		cert := &x509.Certificate{Subject: pkix.Name{CommonName: tt.common}, DNSNames: tt.hosts, NotAfter: now.Add(tt.ends)}
		got := doubts(cert, "fabrikam.com", now)
		var want []string
		if tt.want != "" {
			want = strings.Split(tt.want, ";")
		}
		if len(got) != len(want) {
			t.Errorf("%s: %q, want %q", tt.name, got, want)
			continue
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("%s: %q, want %q", tt.name, got[i], want[i])
			}
		}
	}
}

// TestCertificateThatBeginsLater is registered, and told: until then its tokens are refused.
func TestCertificateThatBeginsLater(t *testing.T) {
	for _, begins := range []time.Duration{-time.Hour, time.Hour} {
		now := time.Now()
		file := filepath.Join(t.TempDir(), "organization.cer")
		certificate := authtest.NewKeyValid("fabrikam.com", now.Add(begins), now.Add(2*time.Hour)).Certificate.Raw
		if err := os.WriteFile(file, certificate, 0o600); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		terminal := &Terminal{Terminal: &command.Terminal{Out: &said, Err: &said}}
		request, err := terminal.credentialRequest("fabrikam.com", file, "", "", false)
		if err != nil || len(request.GetCertificate()) != len(certificate) {
			t.Fatalf("begins %v from now: %v, %v", begins, request, err)
		}
		if told := strings.Contains(said.String(), "the certificate begins on"); told != (begins > 0) {
			t.Errorf("begins %v from now: says %q", begins, said.String())
		}
	}
}

// TestCertificateWhoseEndIsPast is registered with --force only, and told.
func TestCertificateWhoseEndIsPast(t *testing.T) {
	now := time.Now()
	file := filepath.Join(t.TempDir(), "organization.cer")
	certificate := authtest.NewKeyValid("fabrikam.com", now.Add(-24*time.Hour), now.Add(48*time.Hour)).Certificate.Raw
	if err := os.WriteFile(file, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(d time.Duration) string { return now.Add(d).UTC().Format(time.RFC3339) }
	for _, tt := range []struct{ start, end, want string }{
		{"", "", ""},
		{at(0), at(36 * time.Hour), ""},
		{"", at(-time.Hour), "is past"},
		{at(-2 * time.Hour), at(-time.Hour), "is past"},
		{"", at(-25 * time.Hour), ""}, // the relay refuses it
		{at(time.Hour), at(-time.Hour), ""},
	} {
		for _, force := range []bool{false, true} {
			var said strings.Builder
			terminal := &Terminal{Terminal: &command.Terminal{Out: &said, Err: &said}}
			_, err := terminal.credentialRequest("fabrikam.com", file, tt.start, tt.end, force)
			if refused := tt.want != "" && !force; (err != nil) != refused || refused && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("from %q to %q, force %t: %v, want %q", tt.start, tt.end, force, err, tt.want)
			}
			if force && !strings.Contains(said.String(), tt.want) {
				t.Errorf("from %q to %q it says %q, want %q", tt.start, tt.end, said.String(), tt.want)
			}
		}
	}
}
