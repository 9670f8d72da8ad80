package imap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"badgerelay/auth/authtest"
	"badgerelay/relay/agent/imap/imaptest"
	"badgerelay/relay/agent/source"
	"badgerelay/relay/freeport"
)

// TestTLSIsVerified logs in to a real Dovecot with TLS, in both ways, and is
// kept from it by a certificate that is not the right one.
func TestTLSIsVerified(t *testing.T) {
	t.Parallel()
	if imaptest.Root() != "" {
		t.Skip("its certificate is in a directory of this system")
	}
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	trusted := certificate(t, dir)
	imaps, err := freeport.Address() // Dovecot has to be told a port
	must(t, err)
	_, port, err := net.SplitHostPort(imaps)
	must(t, err)
	pair, address := "ssl_cert = <"+dir+"/cert.pem\nssl_key = <"+dir+"/key.pem", "address"
	if imaptest.Is24() {
		pair, address = "ssl_server_cert_file = "+dir+"/cert.pem\nssl_server_key_file = "+dir+"/key.pem", "listen"
	}
	d := imaptest.Run(t, imaptest.Config{More: `
ssl = yes
` + pair + `
service imap-login {
  inet_listener imaps {
    ` + address + ` = 127.0.0.1
    port = ` + port + `
    ssl = yes
  }
}
`})
	must(t, d.Deliver("ann", "x"))
	for _, tt := range []struct {
		name, security, address, host string
		roots                         *x509.CertPool
		want                          string // in the error; empty: none
	}{
		{"tls", "tls", imaps, "mail.test", trusted, ""},
		{"starttls", "starttls", d.IMAP, "mail.test", trusted, ""},
		{"tls, another name", "tls", imaps, "elsewhere.test", trusted, "certificate is valid for mail.test"},
		{"starttls, another name", "starttls", d.IMAP, "elsewhere.test", trusted, "certificate is valid for mail.test"},
		{"tls, unknown authority", "tls", imaps, "mail.test", x509.NewCertPool(), "unknown authority"},
		{"starttls, unknown authority", "starttls", d.IMAP, "mail.test", x509.NewCertPool(), "unknown authority"},
		{"tls where there is none", "tls", d.IMAP, "mail.test", trusted, "does not look like a TLS handshake"},
	} {
		c := ofDovecot(d)
		c.Address, c.Security = tt.address, tt.security
		c.TLS = func() *tls.Config { return &tls.Config{ServerName: tt.host, RootCAs: tt.roots} }
		s, err := New(c)
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		got, err := s.Count(ctx, "ann")
		cancel()
		switch {
		case tt.want == "" && (err != nil || got.Unread != 1):
			t.Errorf("%s: %+v, %v, want one unread", tt.name, got, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, source.ErrMailbox)):
			t.Errorf("%s: %v, want %q, which is not the mailbox's fault", tt.name, err, tt.want)
		}
	}
}

// TestNothingIsSentBeforeTLS lets somebody in the middle answer STARTTLS.
func TestNothingIsSentBeforeTLS(t *testing.T) {
	for name, answers := range map[string][2]string{
		"refused":         {"* OK hello\r\n", "S BAD no\r\n"},
		"more than asked": {"* OK hello\r\n", "S OK go\r\n* CAPABILITY IMAP4rev1\r\n"},
		"logged in":       {"* PREAUTH hello\r\n", "S OK go\r\n"},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		heard := make(chan string, 1)
		go func() { // ends when the client gives up
			conn, err := l.Accept()
			if err != nil {
				heard <- err.Error()
				return
			}
			_, _ = io.WriteString(conn, answers[0])
			line := make([]byte, len("S STARTTLS\r\n"))
			_, _ = io.ReadFull(conn, line)
			_, _ = io.WriteString(conn, answers[1])
			rest, _ := io.ReadAll(conn)
			heard <- string(rest)
			_ = conn.Close()
		}()
		c := Config{Address: l.Addr().String(), Security: "starttls", Login: Master("master", "password", "")}
		s, err := New(c)
		must(t, err)
		if _, err := s.Count(t.Context(), "ann"); err == nil {
			t.Errorf("%s: counted", name)
		}
		if got := <-heard; strings.Contains(got, "AUTH") || strings.Contains(got, "LOGIN") {
			t.Errorf("%s: sent %q", name, got)
		}
		must(t, l.Close())
	}
}

// certificate writes a certificate for mail.test and its key, and returns what
// to trust it with.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	s := authtest.NewServer("mail.test", time.Now().Add(time.Hour), "mail.test")
	must(t, s.Write(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")))
	return s.Pool()
}
