package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// soon is how long before a certificate's end the check warns.
const soon = 14 * 24 * time.Hour

// maxSecretFile bounds the files that the configuration names.
const maxSecretFile = 1 << 20

// secret reads a file that only the relay's user and group may read.
func (k *checker) secret(field, path string) []byte {
	data, mode, ok := k.content(field, path)
	if ok && mode.Perm()&0o007 != 0 {
		k.bad(field, "others may open %s (mode %04o): chmod o-rwx, in Kubernetes defaultMode: 0440", path, mode.Perm())
	}
	return data
}

func (k *checker) content(field, path string) ([]byte, fs.FileMode, bool) {
	if path == "" {
		k.bad(field, "is required")
		return nil, 0, false
	}
	info, err := os.Stat(path)
	if err != nil {
		k.bad(field, "can't open it: %s", cause(err, path))
		return nil, 0, false
	}
	if !info.Mode().IsRegular() || info.Size() > maxSecretFile {
		k.bad(field, "%s is not a file of at most 1 MiB", path)
		return nil, 0, false
	}
	data, err := os.ReadFile(path)
	if err != nil {
		k.bad(field, "can't read it: %s", cause(err, path))
		return nil, 0, false
	}
	return data, info.Mode(), true
}

func cause(err error, path string) string {
	if perr, ok := errors.AsType[*fs.PathError](err); ok {
		return perr.Err.Error() + ": " + path
	}
	return err.Error()
}

// tls checks a certificate with its key.
func (k *checker) tls(field string, t TLS) {
	certificate, key, ok := k.pair(field, t)
	if !ok {
		return
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		k.bad(field, "certificate_file and key_file don't make a pair: %v", err)
		return
	}
	k.validity(field+".certificate_file", pair.Leaf)
}

func (k *checker) pair(field string, t TLS) (certificate, key []byte, ok bool) {
	before := len(k.found)
	certificate, _, _ = k.content(field+".certificate_file", t.CertificateFile)
	key = k.secret(field+".key_file", t.KeyFile)
	if certificate != nil && firstBlock(certificate, "CERTIFICATE") == nil {
		k.bad(field+".certificate_file", "%s holds no PEM certificate%s", t.CertificateFile, instead(certificate))
	}
	if key != nil && firstBlock(key, "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY") == nil {
		k.bad(field+".key_file", "%s holds no PEM private key%s", t.KeyFile, instead(key))
	}
	return certificate, key, len(k.found) == before
}

func (k *checker) validity(field string, certificate *x509.Certificate) {
	now := time.Now()
	switch {
	case now.After(certificate.NotAfter):
		k.bad(field, "the certificate expired on %s", day(certificate.NotAfter))
	case now.Before(certificate.NotBefore):
		k.bad(field, "the certificate is not valid before %s", day(certificate.NotBefore))
	case now.Add(soon).After(certificate.NotAfter):
		k.warn(field, "the certificate expires soon, on %s", day(certificate.NotAfter))
	}
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// authorities checks a file of certificates that we trust.
func (k *checker) authorities(field, path string) {
	data, _, ok := k.content(field, path)
	if ok && !x509.NewCertPool().AppendCertsFromPEM(data) {
		k.bad(field, "%s holds no PEM certificate%s", path, instead(data))
	}
}

// providerKey checks a .p8 file: a PKCS #8 ECDSA key on P-256 (Apple,
// "Establishing a token-based connection to APNs", read 2026-11).
func (k *checker) providerKey(field, path string) {
	data := k.secret(field, path)
	if data == nil {
		return
	}
	block := firstBlock(data, "PRIVATE KEY")
	if block == nil {
		k.bad(field, "%s holds no .p8 key%s", path, instead(data))
		return
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		k.bad(field, "%s is not a PKCS #8 key: %v", path, err)
		return
	}
	if ec, ok := key.(*ecdsa.PrivateKey); !ok || ec.Curve != elliptic.P256() {
		k.bad(field, "%s is a key of the wrong kind (%s): Apple's are ECDSA P-256", path, keyKind(key))
	}
}

func keyKind(key any) string {
	if ec, ok := key.(*ecdsa.PrivateKey); ok {
		return "ECDSA " + ec.Curve.Params().Name
	}
	return fmt.Sprintf("%T", key)
}

func firstBlock(data []byte, types ...string) *pem.Block {
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil
		}
		for _, t := range types {
			if block.Type == t {
				return block
			}
		}
		data = rest
	}
}

// instead names what the file holds, for the commonest mistake: two paths
// exchanged.
func instead(data []byte) string {
	if block, _ := pem.Decode(data); block != nil {
		return fmt.Sprintf(", but a PEM block %q", block.Type)
	}
	return ""
}
