package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"badgerelay/auth/authtest"
	"badgerelay/cmd/internal/configfile"
)

func TestFilesAreOfTheRightKind(t *testing.T) {
	dir := t.TempDir()
	good := newPair(t, dir, "good", time.Now().Add(365*24*time.Hour))
	old := newPair(t, dir, "old", time.Now().Add(-time.Hour))
	aging := newPair(t, dir, "aging", time.Now().Add(24*time.Hour))
	open := filepath.Join(dir, "open.key")
	copyFile(t, good.KeyFile, open, 0o644)
	p384 := filepath.Join(dir, "p384.p8")
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err == nil {
		err = os.WriteFile(p384, authtest.KeyPEM(key), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	locked, lockedBefore := filepath.Join(dir, "locked.key"), filepath.Join(dir, "locked-before.key")
	if err := errors.Join(
		os.WriteFile(locked, pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("locked")}), 0o600),
		os.WriteFile(lockedBefore, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("locked"),
			Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}}), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	content := func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}

	tests := []struct {
		name, field, want string
		check             func(k *configfile.Checker)
	}{
		{"good pair", "", "", func(k *configfile.Checker) { k.KeyPair("tls", good) }},
		{"expired", "tls.certificate_file", "the certificate expired on", func(k *configfile.Checker) { k.KeyPair("tls", old) }},
		{"expires soon", "tls.certificate_file", "expires soon", func(k *configfile.Checker) { k.KeyPair("tls", aging) }},
		{"foreign key", "tls", "don't make a pair", func(k *configfile.Checker) {
			k.KeyPair("tls", TLS{CertificateFile: good.CertificateFile, KeyFile: old.KeyFile})
		}},
		{"exchanged", "tls.certificate_file", `holds no PEM certificate, but a PEM block "PRIVATE KEY"`, func(k *configfile.Checker) {
			k.KeyPair("tls", TLS{CertificateFile: good.KeyFile, KeyFile: good.KeyFile})
		}},
		{"with a passphrase", "tls.key_file", "has a passphrase, which nobody could type at a start: 'openssl pkey -in " + locked, func(k *configfile.Checker) {
			k.KeyPair("tls", TLS{CertificateFile: good.CertificateFile, KeyFile: locked})
		}},
		{"with a passphrase as it was", "tls.key_file", "has a passphrase", func(k *configfile.Checker) {
			k.KeyPair("tls", TLS{CertificateFile: good.CertificateFile, KeyFile: lockedBefore})
		}},
		{"missing", "tls.key_file", "no such file", func(k *configfile.Checker) {
			k.KeyPair("tls", TLS{CertificateFile: good.CertificateFile, KeyFile: dir + "/none"})
		}},
		{"not named", "tls.key_file", "is required", func(k *configfile.Checker) { k.KeyPair("tls", TLS{CertificateFile: good.CertificateFile}) }},
		{"directory", "tls.key_file", "is not a file", func(k *configfile.Checker) {
			k.KeyPair("tls", TLS{CertificateFile: good.CertificateFile, KeyFile: dir})
		}},
		{"open to others", "tls.key_file", "others may open", func(k *configfile.Checker) {
			k.KeyPair("tls", TLS{CertificateFile: good.CertificateFile, KeyFile: open})
		}},
		{"byte order mark", "tls.certificate_file", "byte order mark", func(k *configfile.Checker) {
			k.KeyPair("tls", TLS{CertificateFile: write(t, "bom.pem", "\xef\xbb\xbf"+content(good.CertificateFile)), KeyFile: good.KeyFile})
		}},
		{"key in UTF-16", "tls.key_file", "UTF-16", func(k *configfile.Checker) {
			k.KeyPair("tls", TLS{CertificateFile: good.CertificateFile, KeyFile: write(t, "utf16.pem", "\xff\xfe-\x00")})
		}},
		{"authorities with a byte order mark", "ca_file", "byte order mark", func(k *configfile.Checker) {
			k.Authorities("ca_file", write(t, "bomca.pem", "\xef\xbb\xbf"+content(good.CertificateFile)))
		}},
		{"provider key with a byte order mark", "", "", func(k *configfile.Checker) {
			providerKey(k, "key_file", write(t, "bom.p8", "\xef\xbb\xbf"+content(good.KeyFile)))
		}},
		{"provider key in UTF-16", "key_file", "UTF-16", func(k *configfile.Checker) { providerKey(k, "key_file", write(t, "utf16.p8", "\xff\xfe-\x00")) }},
		{"provider key", "", "", func(k *configfile.Checker) { providerKey(k, "key_file", good.KeyFile) }},
		{"wrong curve", "key_file", "wrong kind (ECDSA P-384)", func(k *configfile.Checker) { providerKey(k, "key_file", p384) }},
		{"certificate for key", "key_file", `holds no .p8 key, but a PEM block "CERTIFICATE"`, func(k *configfile.Checker) { providerKey(k, "key_file", good.CertificateFile) }},
		{"authorities", "", "", func(k *configfile.Checker) { k.Authorities("ca_file", good.CertificateFile) }},
		{"key for authorities", "ca_file", "holds no PEM certificate", func(k *configfile.Checker) { k.Authorities("ca_file", good.KeyFile) }},
		{"app certificate", "", "", func(k *configfile.Checker) {
			AppCertificate{File: good.CertificateFile, KeyFile: good.KeyFile}.check(k, "c")
		}},
		{"app certificate without key", "c.file", "load certificate", func(k *configfile.Checker) {
			AppCertificate{File: good.CertificateFile}.check(k, "c")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := &configfile.Checker{}
			tt.check(k)
			if tt.want == "" && len(k.Found) > 0 {
				t.Fatalf("found %v, want nothing", k.Found[0])
			}
			if tt.want != "" && (len(k.Found) == 0 || k.Found[0].Field != tt.field || !strings.Contains(k.Found[0].Text, tt.want)) {
				t.Errorf("found %v, want %s: %s", k.Found, tt.field, tt.want)
			}
		})
	}
}

func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(to, mode); err != nil { // the umask may have taken some of it
		t.Fatal(err)
	}
}

func newPair(t *testing.T, dir, name string, end time.Time) TLS {
	t.Helper()
	pair := TLS{CertificateFile: filepath.Join(dir, name+".crt"), KeyFile: filepath.Join(dir, name+".key")}
	if err := authtest.NewServer(name, end, "localhost").Write(pair.CertificateFile, pair.KeyFile); err != nil {
		t.Fatal(err)
	}
	return pair
}

// TestForeignCertificate warns of a certificate that agents will refuse; the one here
// names localhost.
func TestForeignCertificate(t *testing.T) {
	pair := newPair(t, t.TempDir(), "relay", time.Now().Add(365*24*time.Hour))
	for _, c := range []struct {
		authorities []string
		want        string
	}{
		{[]string{"localhost:8443"}, ""},
		{[]string{"LOCALHOST"}, ""},
		{[]string{"localhost", "relay.example.com:8443", "[::1]:8443"}, "the certificate is for localhost and not for relay.example.com, ::1: clients that connect by that name refuse it (auth.authorities)"},
	} {
		k := &configfile.Checker{}
		(&Config{Listen: Listen{TLS: pair}, Auth: Auth{Authorities: c.authorities}}).checkListeners(k)
		var got string
		for _, p := range k.Found {
			if p.Field == "listen.tls.certificate_file" && p.Warning {
				got += p.Text
			}
		}
		if got != c.want {
			t.Errorf("authorities %q: %q, want %q", c.authorities, got, c.want)
		}
	}
}
