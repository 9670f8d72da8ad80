package certs_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"badgerelay/auth/authtest"
	"badgerelay/auth/certs"
)

func utf16Text(order binary.AppendByteOrder, text string) []byte {
	var b []byte
	for _, u := range append([]uint16{0xfeff}, utf16.Encode([]rune(text))...) {
		b = order.AppendUint16(b, u)
	}
	return b
}

// pkcs7 has openssl put certificates into a .p7b file.
func pkcs7(t *testing.T, form string, bag ...*x509.Certificate) []byte {
	t.Helper()
	dir := t.TempDir()
	args := []string{"crl2pkcs7", "-nocrl", "-outform", form}
	for _, c := range bag {
		file := filepath.Join(dir, certs.Thumbprint(c)+".pem")
		if err := os.WriteFile(file, authtest.CertificatePEM(c), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-certfile", file)
	}
	data, err := exec.Command("openssl", args...).Output()
	if err != nil && os.Getenv("CI") != "" {
		t.Fatalf("openssl: %v", err)
	}
	if err != nil {
		t.Skipf("openssl: %v", err)
	}
	return data
}

func TestCertificatesAsPeopleHaveThem(t *testing.T) {
	cert := authtest.NewKey("one", time.Now()).Certificate
	text := string(authtest.CertificatePEM(cert))
	bare := base64.StdEncoding.EncodeToString(cert.Raw)
	for name, data := range map[string][]byte{
		"DER":                   cert.Raw,
		"PEM":                   []byte(text),
		"PEM of Windows":        []byte("\r\n" + strings.ReplaceAll(text, "\n", "\r\n")),
		"PEM with a mark":       []byte("\xef\xbb\xbf" + text),
		"UTF-16 little end":     utf16Text(binary.LittleEndian, strings.ReplaceAll(text, "\n", "\r\n")),
		"UTF-16 big end":        utf16Text(binary.BigEndian, text),
		"bare base64":           []byte(bare),
		"bare base64, in lines": []byte(strings.ReplaceAll(text[len("-----BEGIN CERTIFICATE-----"):strings.Index(text, "-----END")], "\n", "\r\n")),
		"bare base64, UTF-16":   utf16Text(binary.LittleEndian, bare),
		"p7b":                   pkcs7(t, "DER", cert),
		"p7b, PEM":              pkcs7(t, "PEM", cert),
		"p7b, bare base64":      []byte(base64.StdEncoding.EncodeToString(pkcs7(t, "DER", cert))),
	} {
		got, err := certs.ReadFile(data)
		if err != nil || !bytes.Equal(got.Raw, cert.Raw) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := authtest.NewKey("two", time.Now()).Certificate
	for name, data := range map[string][]byte{
		"nothing": nil, "words": []byte("hello"), "a mark alone": []byte("\xff\xfe"), "half of it": cert.Raw[:100],
		"two in a p7b": pkcs7(t, "DER", cert, other), "none in a p7b": pkcs7(t, "DER"),
		"two":   []byte(text + string(authtest.CertificatePEM(other))),
		"a key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}),
		"much":  bytes.Repeat([]byte("A"), certs.MaxSize+1),
	} {
		if _, err := certs.ReadFile(data); !errors.Is(err, certs.ErrCertificate) {
			t.Errorf("%s: %v, want ErrCertificate", name, err)
		}
	}
}

// FuzzCertificateFile: whatever a file holds, it is a certificate or an error.
func FuzzCertificateFile(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add(utf16Text(binary.LittleEndian, "MIIB"))
	f.Add([]byte("\x30\x13\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x06\x30\x04\x02\x01\x01\x31\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cert, err := certs.ReadFile(data)
		if (err == nil) != (cert != nil) || err != nil && !errors.Is(err, certs.ErrCertificate) {
			t.Errorf("%q: %v, %v", data, cert, err)
		}
	})
}
