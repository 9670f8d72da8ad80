package configfile

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// soon is how long before a certificate's end the check warns.
const soon = 14 * 24 * time.Hour

// maxNamed bounds the files that the configuration names, where nothing else is
// said.
const maxNamed = 1 << 20

// Secret reads a file that only the service's user and group may read. On
// Windows a mode does not tell who may; there it is for the directory's access
// control list.
func (k *Checker) Secret(field, path string) []byte { return k.LargeSecret(field, path, maxNamed) }

// LargeSecret reads a secret of at most limit bytes.
func (k *Checker) LargeSecret(field, path string, limit int64) []byte {
	data, mode, ok := k.content(field, path, limit)
	if ok && mode.Perm()&0o007 != 0 && runtime.GOOS != "windows" {
		k.Bad(field, "others may open %s (mode %04o): chmod o-rwx, in Kubernetes defaultMode: 0440", path, mode.Perm())
	}
	return data
}

// Content reads a file of at most 1 MiB.
func (k *Checker) Content(field, path string) ([]byte, fs.FileMode, bool) {
	return k.content(field, path, maxNamed)
}

func (k *Checker) content(field, path string, limit int64) ([]byte, fs.FileMode, bool) {
	if path == "" {
		k.Bad(field, "is required")
		return nil, 0, false
	}
	info, err := os.Stat(path)
	if err != nil {
		k.Bad(field, "can't open it: %s", cause(err, path))
		return nil, 0, false
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		k.Bad(field, "%s is not a file of at most %d MiB", path, limit>>20)
		return nil, 0, false
	}
	data, err := os.ReadFile(path)
	if err != nil {
		k.Bad(field, "can't read it: %s", cause(err, path))
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

// KeyPair checks a certificate with its key, and returns it; nil: they are not good.
func (k *Checker) KeyPair(field string, t TLS) *x509.Certificate {
	certificate, key, ok := k.pair(field, t)
	if !ok {
		return nil
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		k.Bad(field, "certificate_file and key_file don't make a pair: %v", err)
		return nil
	}
	k.Validity(field+".certificate_file", pair.Leaf)
	return pair.Leaf
}

func (k *Checker) pair(field string, t TLS) (certificate, key []byte, ok bool) {
	before := len(k.Found)
	certificate, _, _ = k.Content(field+".certificate_file", t.CertificateFile)
	key = k.Secret(field+".key_file", t.KeyFile)
	k.encoding(field+".certificate_file", t.CertificateFile, certificate)
	k.encoding(field+".key_file", t.KeyFile, key)
	if certificate != nil && Block(certificate, "CERTIFICATE") == nil {
		k.Bad(field+".certificate_file", "%s holds no PEM certificate%s", t.CertificateFile, Instead(certificate))
	}
	switch {
	case key == nil:
	case HasPassphrase(key):
		k.Bad(field+".key_file", "%s has a passphrase, which nobody could type at a start: 'openssl pkey -in %[1]s -out FILE' writes the key without one", t.KeyFile)
	case Block(key, "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY") == nil:
		k.Bad(field+".key_file", "%s holds no PEM private key%s", t.KeyFile, Instead(key))
	}
	return certificate, key, len(k.Found) == before
}

// Validity checks that a certificate is valid now, and warns when it ends soon.
func (k *Checker) Validity(field string, certificate *x509.Certificate) {
	now := time.Now()
	switch {
	case now.After(certificate.NotAfter):
		k.badByClock(field, "the certificate expired on %s", day(certificate.NotAfter))
	case now.Before(certificate.NotBefore):
		k.badByClock(field, "the certificate is not valid before %s", day(certificate.NotBefore))
	case now.Add(soon).After(certificate.NotAfter):
		k.Warn(field, "the certificate expires soon, on %s", day(certificate.NotAfter))
	}
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// Authorities checks a file of certificates that we trust; empty: the system's are.
func (k *Checker) Authorities(field, path string) {
	if path == "" {
		return
	}
	data, _, ok := k.Content(field, path)
	ok = ok && k.encoding(field, path, data)
	if ok && !x509.NewCertPool().AppendCertsFromPEM(data) {
		k.Bad(field, "%s holds no PEM certificate%s", path, Instead(data))
	}
}

// ReadNamed reads a file of at most 1 MiB that a flag names; it may be a pipe.
func ReadNamed(path string) (data []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, maxNamed+1))
	if len(data) > maxNamed {
		return nil, fmt.Errorf("%s is not a file of at most %d MiB", path, maxNamed>>20)
	}
	return data, err
}

// Pool reads the authorities in a PEM file. Its error names the file.
func Pool(path string) (*x509.CertPool, error) {
	data, err := ReadNamed(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no PEM certificate%s", path, Instead(data))
	}
	return pool, nil
}

// ClientTLS is how a client trusts the authorities in a PEM file; empty: the system's.
// Its error names the file.
func ClientTLS(authorities string) (config *tls.Config, err error) {
	config = &tls.Config{MinVersion: tls.VersionTLS12}
	if authorities == "" {
		return config, nil
	}
	config.RootCAs, err = Pool(authorities)
	return config, err
}

// encoding reports whether a PEM file is text as PEM's readers know it: what
// Windows editors put first hides the first block from them.
func (k *Checker) encoding(field, path string, data []byte) bool {
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		k.Bad(field, "%s is text in UTF-16: save it as ASCII", path)
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		k.Bad(field, "%s begins with a byte order mark, which hides what comes first: save it as ASCII", path)
	default:
		return true
	}
	return false
}

// HasPassphrase reports whether the first private key in PEM is encrypted: as PKCS #8, or
// by a heading as OpenSSL did before (RFC 1421, 4.6.1.1).
func HasPassphrase(data []byte) bool {
	block := Block(data, "ENCRYPTED PRIVATE KEY", "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY")
	return block != nil && (block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"))
}

// Block returns the first PEM block of one of the types; nil: there is none.
func Block(data []byte, types ...string) *pem.Block {
	for {
		block, rest := pem.Decode(data)
		if block == nil || slices.Contains(types, block.Type) {
			return block
		}
		data = rest
	}
}

// Instead names what the file holds, for the commonest mistake: two paths
// exchanged.
func Instead(data []byte) string {
	if block, _ := pem.Decode(data); block != nil {
		return fmt.Sprintf(", but a PEM block %q", block.Type)
	}
	return ""
}

// Makeable says why this user can't make a file or a directory, with the directories
// above it that are not there; nil: nothing speaks against it. It makes nothing.
func Makeable(path string) error {
	parent := filepath.Dir(path)
	info, err := os.Stat(parent)
	switch {
	case err != nil && parent != path:
		return Makeable(parent)
	case err != nil:
		return err
	case !info.IsDir():
		return syscall.ENOTDIR
	}
	return writable(parent)
}

// Foreign says of a listener's certificate which of the addresses by which clients
// reach it (host or host:port) it does not name, so that they refuse it; empty: it
// names them all.
func Foreign(certificate *x509.Certificate, addresses []string) string {
	var foreign []string
	for _, address := range addresses {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			host = strings.Trim(address, "[]")
		}
		if certificate.VerifyHostname(host) != nil {
			foreign = append(foreign, host)
		}
	}
	if len(foreign) == 0 {
		return ""
	}
	names := slices.Clone(certificate.DNSNames)
	for _, ip := range certificate.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = []string{"no host (it has no subjectAltName)"}
	}
	return "the certificate is for " + strings.Join(names, ", ") + " and not for " + strings.Join(foreign, ", ") +
		": clients that connect by that name refuse it"
}
