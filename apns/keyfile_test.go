package apns

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// TestParseSigningKey reads a .p8 in the states that editors and openssl leave
// it in, and is told what a file is that can't be one.
func TestParseSigningKey(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader) // rand does not fail
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	der := func(key any) []byte {
		b, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	p8 := block("PRIVATE KEY", der(key))
	sec1, _ := x509.MarshalECPrivateKey(key)
	public, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
	encode16 := func(bom bool, high, low int) string {
		var b []byte
		text := utf16.Encode([]rune(p8))
		if bom {
			text = append([]uint16{0xfeff}, text...)
		}
		for _, u := range text {
			b = append(b, byte(u>>high), byte(u>>low))
		}
		return string(b)
	}
	for _, tt := range []struct{ name, data, want string }{
		{"as Apple hands it out", p8, ""},
		{"without the last line feed", strings.TrimSpace(p8), ""},
		{"byte order mark", "\xef\xbb\xbf" + p8, ""},
		{"CR LF", strings.ReplaceAll(p8, "\n", "\r\n"), ""},
		{"byte order mark and CR LF", "\xef\xbb\xbf" + strings.ReplaceAll(p8, "\n", "\r\n"), ""},
		{"CR", strings.ReplaceAll(p8, "\n", "\r"), ""},
		{"indented", "  " + strings.ReplaceAll(p8, "\n", " \n\t"), ""},
		{"text before and after", "AuthKey_ABC.p8\nkey:\n" + p8 + "end\n", ""},
		{"SEC 1", block("EC PRIVATE KEY", sec1), ""},
		{"SEC 1 after its parameters", block("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}) + block("EC PRIVATE KEY", sec1), ""},
		{"SEC 1 called PRIVATE KEY", block("PRIVATE KEY", sec1), ""},
		{"beside the public key", block("PUBLIC KEY", public) + p8, ""},

		{"UTF-16LE", encode16(true, 0, 8), "UTF-16"},
		{"UTF-16BE", encode16(true, 8, 0), "UTF-16"},
		{"UTF-16LE without a mark", encode16(false, 0, 8), "UTF-16"},
		{"UTF-16BE without a mark", encode16(false, 8, 0), "UTF-16"},
		{"encrypted", block("ENCRYPTED PRIVATE KEY", []byte("x")), "encrypted"},
		{"RSA", block("PRIVATE KEY", der(rsaKey)), "wrong kind (RSA)"},
		{"RSA in PKCS #1", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), "wrong kind (RSA)"},
		{"P-384", block("PRIVATE KEY", der(p384)), "wrong kind (ECDSA P-384)"},
		{"certificate", block("CERTIFICATE", []byte("x")), `PEM block "CERTIFICATE"`},
		{"public key", block("PUBLIC KEY", public), `PEM block "PUBLIC KEY"`},
		{"broken", block("PRIVATE KEY", []byte("x")), "is not a PKCS #8 key"},
		{"cut off", p8[:100], "damaged"},
		{"in one line", strings.ReplaceAll(p8, "\n", `\n`), "damaged"},
		{"empty", " \n", "empty"},
		{"DER", string(der(key)), "no line -----BEGIN PRIVATE KEY-----"},
	} {
		got, err := ParseSigningKey([]byte(tt.data))
		switch {
		case tt.want == "" && (err != nil || !key.Equal(got)):
			t.Errorf("%s: got %v, %v, want the key", tt.name, got != nil, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: got error %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

func FuzzParseSigningKey(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("\xff\xfe"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := ParseSigningKey(data)
		if (key == nil) == (err == nil) {
			t.Errorf("%q: key %v, error %v", data, key != nil, err)
		}
	})
}

// openssl runs commands of the real program in a directory.
func openssl(t *testing.T, dir string, commands ...string) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("needs openssl")
	}
	for _, command := range commands {
		cmd := exec.CommandContext(t.Context(), "openssl", strings.Fields(command)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v\n%s", command, err, out)
		}
	}
}

// TestCertificatesOfOpenSSL reads what OpenSSL 3 writes by default and in its
// older ways.
func TestCertificatesOfOpenSSL(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	join := func(name string, parts ...string) {
		t.Helper()
		var all []byte
		for _, part := range parts {
			data, err := os.ReadFile(path(part))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, data...)
		}
		if err := os.WriteFile(path(name), all, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openssl(t, dir,
		"req -x509 -newkey rsa:2048 -subj /CN=push -days 30 -keyout pkcs8.key -out push.crt -passout pass:secret", // BEGIN ENCRYPTED PRIVATE KEY
		"pkey -in pkcs8.key -passin pass:secret -out plain.key",
		"rsa -in plain.key -traditional -aes256 -passout pass:secret -out older.key", // Proc-Type: 4,ENCRYPTED
		"pkcs8 -topk8 -in plain.key -v2 des3 -passout pass:secret -out des3.key",
		"pkcs8 -topk8 -in plain.key -scrypt -passout pass:secret -out scrypt.key",
		"pkcs8 -topk8 -in plain.key -v1 PBE-SHA1-3DES -passout pass:secret -out pbes1.key",
		"req -x509 -newkey rsa:2048 -nodes -subj /CN=other -days 30 -keyout other.key -out other.crt",
		"x509 -in push.crt -outform DER -out push.cer",
		"pkcs12 -export -in push.crt -inkey plain.key -certfile other.crt -passout pass:secret -out modern.p12",
		"pkcs12 -export -in push.crt -inkey plain.key -legacy -passout pass:secret -out legacy.p12",
		"pkcs12 -export -in push.crt -inkey plain.key -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1 -passout pass:secret -out windows.pfx",
		"pkcs12 -in modern.p12 -passin pass:secret -passout pass:secret -out attributes.pem", // with "Bag Attributes" between
	)
	for _, name := range []string{"pkcs8", "plain", "older", "des3", "scrypt", "pbes1", "other"} {
		join(name+".pem", "push.crt", name+".key")
	}
	join("keyfirst.pem", "pkcs8.key", "push.crt")
	join("chain.pem", "other.crt", "push.crt", "pkcs8.key")
	join("alone.pem", "push.crt")
	join("keyalone.pem", "plain.key")
	text, _ := os.ReadFile(path("pkcs8.pem")) // join wrote it
	windows := append([]byte("\xef\xbb\xbf"), bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))...)
	der, _ := os.ReadFile(path("modern.p12"))
	for name, data := range map[string][]byte{"windows.pem": windows, "named.pem": der, "cut.p12": der[:100], "noise.pem": []byte("noise")} {
		if err := os.WriteFile(path(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	for _, tt := range []struct{ file, keyFile, password, want string }{
		{"plain.pem", "", "", ""},
		{"plain.pem", "", "unused", ""},
		{"pkcs8.pem", "", "secret", ""},
		{"older.pem", "", "secret", ""},
		{"des3.pem", "", "secret", ""},
		{"scrypt.pem", "", "secret", ""},
		{"keyfirst.pem", "", "secret", ""},
		{"chain.pem", "", "secret", ""},
		{"attributes.pem", "", "secret", ""},
		{"windows.pem", "", "secret", ""},
		{"push.crt", "plain.key", "", ""},
		{"push.crt", "pkcs8.key", "secret", ""},
		{"modern.p12", "", "secret", ""},
		{"legacy.p12", "", "secret", ""},
		{"windows.pfx", "", "secret", ""},
		{"named.pem", "", "secret", ""},

		{"pkcs8.pem", "", "Secret", "incorrect password"},
		{"older.pem", "", "Secret", "incorrect password"},
		{"scrypt.pem", "", "Secret", "incorrect password"},
		{"push.crt", "pkcs8.key", "Secret", "incorrect password"},
		{"modern.p12", "", "Secret", "incorrect password"},
		{"legacy.p12", "", "Secret", "incorrect password"},
		{"pkcs8.pem", "", "", "encrypted and no password is given"},
		{"older.pem", "", "", "encrypted and no password is given"},
		{"modern.p12", "", "", "encrypted and no password is given"},
		{"pbes1.pem", "", "secret", "openssl pkcs8 -topk8"},
		{"other.pem", "", "", "belongs to another certificate"},
		{"alone.pem", "", "", "no private key"},
		{"keyalone.pem", "", "", "no certificate"},
		{"push.cer", "", "", "certificate without its private key"},
		{"cut.p12", "", "secret", "neither PEM nor PKCS #12"},
		{"noise.pem", "", "", "neither PEM nor PKCS #12"},
	} {
		keyFile := tt.keyFile
		if keyFile != "" {
			keyFile = path(keyFile)
		}
		cert, err := LoadKeyPair(path(tt.file), keyFile, tt.password)
		switch {
		case tt.want == "" && (err != nil || cert.Leaf.Subject.CommonName != "push" || !bytes.Equal(cert.Certificate[0], cert.Leaf.Raw)):
			t.Errorf("%s %s: %v, want the certificate called push first", tt.file, tt.keyFile, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s %s with %q: got error %v, want one with %q", tt.file, tt.keyFile, tt.password, err, tt.want)
		case err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "Secret")):
			t.Errorf("%s: the error tells the password: %v", tt.file, err)
		}
	}
}

// TestDamagedPKCS8 cuts an encrypted key at every byte and turns every byte.
func TestDamagedPKCS8(t *testing.T) {
	dir := t.TempDir()
	openssl(t, dir, "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out plain.key",
		"pkcs8 -topk8 -in plain.key -iter 1 -passout pass:secret -out pkcs8.key")
	text, err := os.ReadFile(filepath.Join(dir, "pkcs8.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if _, err := decryptPKCS8(block.Bytes, "secret"); err != nil {
		t.Fatalf("whole: %v", err)
	}
	for i := range block.Bytes {
		if _, err := decryptPKCS8(block.Bytes[:i], "secret"); err == nil {
			t.Errorf("cut at %d: taken", i)
		}
		turned := bytes.Clone(block.Bytes)
		turned[i] ^= 0x7f
		_, _ = decryptPKCS8(turned, "secret") // must not panic; the encrypted part has no checksum
	}
	if _, err := decryptPKCS8(block.Bytes, "other"); !errors.Is(err, ErrPasswordWrong) {
		t.Errorf("another password: got %v, want ErrPasswordWrong", err)
	}
}
