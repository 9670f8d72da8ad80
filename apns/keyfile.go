package apns

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/youmark/pkcs8"
	pkcs12 "software.sslmate.com/src/go-pkcs12"
)

// Why a certificate's file can't be used with the password given.
var (
	ErrPasswordMissing = errors.New("the private key is encrypted and no password is given (password_file)")
	ErrPasswordWrong   = errors.New("incorrect password")
)

// LoadCertificate reads a client certificate of Apple's with its key from one
// file, PEM or PKCS #12 (.p12, .pfx). password is the key's, "" for none.
func LoadCertificate(file, password string) (*tls.Certificate, error) {
	return LoadKeyPair(file, "", password)
}

// LoadKeyPair is LoadCertificate with the key in a PEM file of its own; keyFile ""
// means that it is in file.
func LoadKeyPair(file, keyFile, password string) (*tls.Certificate, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	if keyFile != "" {
		key, err := os.ReadFile(keyFile)
		if err != nil {
			return nil, fmt.Errorf("load certificate: %w", err)
		}
		if key, err = pemText(key); err != nil {
			return nil, fmt.Errorf("load certificate: %s %w", keyFile, err)
		}
		data = append(append(data, '\n'), key...)
	}
	cert, err := parseCertificate(data, strings.ToLower(filepath.Ext(file)), password)
	if err != nil {
		return nil, fmt.Errorf("load certificate: %s: %w", file, err)
	}
	return cert, nil
}

// ParseSigningKey reads the key that provider tokens are signed with: a .p8 as
// Apple hands it out (PEM, PKCS #8, ECDSA on P-256), or the same key in the form
// that openssl ec writes. Its errors complete "the file ...".
//
// Source: Apple, "Establishing a token-based connection to APNs" (read 2026-11).
func ParseSigningKey(data []byte) (*ecdsa.PrivateKey, error) {
	text, err := pemText(data)
	if err != nil {
		return nil, err
	}
	instead := ""
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case isEncrypted(block):
			return nil, errors.New("holds an encrypted key; Apple's .p8 is not: decrypt it with openssl pkcs8")
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return signingKey(block.Bytes)
		case block.Type == "EC PARAMETERS": // openssl ecparam writes them before the key
		case instead == "":
			instead = fmt.Sprintf(", but a PEM block %q", block.Type)
		}
	}
	switch {
	case instead != "":
	case len(bytes.TrimSpace(text)) == 0:
		instead = ": it is empty"
	case bytes.Contains(text, []byte("-----BEGIN")):
		instead = ": its PEM is damaged, such as cut off, or without line breaks"
	default:
		instead = ": there is no line -----BEGIN PRIVATE KEY-----"
	}
	return nil, errors.New("holds no .p8 key" + instead)
}

func signingKey(der []byte) (*ecdsa.PrivateKey, error) {
	key, err := parsePrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("is not a PKCS #8 key: %w", err)
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		if key.Curve != elliptic.P256() {
			return nil, wrongKind("ECDSA " + key.Params().Name)
		}
		return key, nil
	case *rsa.PrivateKey:
		return nil, wrongKind("RSA")
	default:
		return nil, wrongKind(fmt.Sprintf("%T", key))
	}
}

func wrongKind(kind string) error {
	return fmt.Errorf("is a key of the wrong kind (%s): Apple's are ECDSA P-256", kind)
}

// parsePrivateKey takes the three forms of a key that openssl writes, whatever
// its PEM block is called.
func parsePrivateKey(der []byte) (crypto.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil { // SEC 1
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	return nil, err
}

// pemText is a PEM file as encoding/pem reads it: without the byte order mark
// that Windows editors put first, which would hide the first block, with line
// feeds alone, and without indentation. UTF-16 is refused by its name.
func pemText(data []byte) ([]byte, error) {
	for _, start := range []string{"\xff\xfe", "\xfe\xff", "-\x00-\x00", "\x00-\x00-"} {
		if bytes.HasPrefix(data, []byte(start)) {
			return nil, errors.New("is text in UTF-16: save it as ASCII or UTF-8")
		}
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	lines := bytes.Split(bytes.ReplaceAll(data, []byte("\r"), []byte("\n")), []byte("\n"))
	for i := range lines {
		lines[i] = bytes.Trim(lines[i], " \t")
	}
	return bytes.Join(lines, []byte("\n")), nil
}

func parseCertificate(data []byte, extension, password string) (*tls.Certificate, error) {
	text, err := pemText(data)
	if err != nil {
		return nil, err
	}
	isPEM := bytes.Contains(text, []byte("-----BEGIN"))
	switch {
	case isPEM && (extension == ".p12" || extension == ".pfx"):
		return nil, fmt.Errorf("is PEM, not PKCS #12 as %s says: rename it to .pem", extension)
	case isPEM:
		return parsePEM(text, password)
	}
	return parsePKCS12(data, password)
}

// parsePEM makes a pair of the key and its certificate; other certificates
// follow as the chain.
func parsePEM(text []byte, password string) (*tls.Certificate, error) {
	var chain []*x509.Certificate
	var key crypto.PrivateKey
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, err
			}
			chain = append(chain, cert)
		case key == nil && strings.HasSuffix(block.Type, "PRIVATE KEY"):
			var err error
			if key, err = decryptKey(block, password); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case len(chain) == 0:
		return nil, errors.New("there is no certificate in it")
	case key == nil:
		return nil, errors.New("there is no private key in it, nor in a key_file")
	}
	return pair(key, chain)
}

// pair puts the key's certificate first.
func pair(key crypto.PrivateKey, chain []*x509.Certificate) (*tls.Certificate, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the private key can't sign")
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return nil, errors.New("the private key is of an unknown kind")
	}
	cert := &tls.Certificate{PrivateKey: key}
	for _, c := range chain {
		if cert.Leaf == nil && public.Equal(c.PublicKey) {
			cert.Leaf, cert.Certificate = c, append([][]byte{c.Raw}, cert.Certificate...)
			continue
		}
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	if cert.Leaf == nil {
		return nil, errors.New("the private key belongs to another certificate")
	}
	return cert, nil
}

func isEncrypted(block *pem.Block) bool {
	return block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED")
}

// decryptKey reads a private key: plain, encrypted in PKCS #8 (OpenSSL 3), or
// in the older way of OpenSSL (RFC 1423).
func decryptKey(block *pem.Block, password string) (crypto.PrivateKey, error) {
	if !isEncrypted(block) {
		key, err := parsePrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse private key: %w", err)
		}
		return key, nil
	}
	if password == "" {
		return nil, ErrPasswordMissing
	}
	if block.Type == "ENCRYPTED PRIVATE KEY" {
		return decryptPKCS8(block.Bytes, password)
	}
	der, err := x509.DecryptPEMBlock(block, []byte(password)) //nolint:staticcheck // deprecated as a way to write keys; people have files of it
	if err == nil {
		var key crypto.PrivateKey
		if key, err = parsePrivateKey(der); err == nil {
			return key, nil
		}
		err = x509.IncorrectPasswordError // one wrong password in 256 leaves padding that looks right
	}
	if errors.Is(err, x509.IncorrectPasswordError) {
		return nil, ErrPasswordWrong
	}
	return nil, fmt.Errorf("decrypt private key: %w", err)
}

func decryptPKCS8(der []byte, password string) (key crypto.PrivateKey, err error) {
	defer func() {
		if recover() != nil { // the library hands a damaged file's sizes to crypto/cipher as they are
			key, err = nil, errors.New("decrypt private key: the file is damaged")
		}
	}()
	key, err = pkcs8.ParsePKCS8PrivateKey(der, []byte(password))
	switch {
	case err == nil:
		return key, nil
	case strings.HasSuffix(err.Error(), "incorrect password"): // it has no sentinel
		return nil, ErrPasswordWrong
	}
	return nil, fmt.Errorf("decrypt private key: %w; openssl pkcs8 -topk8 encrypts it anew in a way that is known", err)
}

// parsePKCS12 reads what the macOS keychain, Windows and OpenSSL of any age
// write.
func parsePKCS12(data []byte, password string) (*tls.Certificate, error) {
	key, leaf, chain, err := pkcs12.DecodeChain(data, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword) && password == "":
		return nil, ErrPasswordMissing
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return nil, ErrPasswordWrong
	case err != nil:
		if _, bad := x509.ParseCertificate(data); bad == nil {
			return nil, errors.New("is the certificate without its private key: export both from the keychain, as .p12")
		}
		return nil, fmt.Errorf("is neither PEM nor PKCS #12: %w", err)
	}
	return pair(key, append([]*x509.Certificate{leaf}, chain...))
}
