package demo

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"badgerelay/apns/apnstest"
	"badgerelay/cmd/badgerelay/internal/config"
)

// keys are everything secret and everything trusted, made for one run.
type keys struct {
	authority     *apnstest.Authority // signs the simulated Apple's and the relay's certificates
	authorityFile string
	provider      *ecdsa.PublicKey // of the .p8 key
	providerFile  string
	relay         config.TLS // of the agents' listener

	signer      *rsa.PrivateKey // signs the organization's tokens
	certificate *x509.Certificate
}

// authority is the name by which the agent reaches the relay.
const authority = "localhost"

func makeKeys(dir string) (*keys, error) {
	k := &keys{
		authorityFile: filepath.Join(dir, "ca.crt"), providerFile: filepath.Join(dir, "provider.p8"),
		relay: config.TLS{CertificateFile: filepath.Join(dir, "relay.crt"), KeyFile: filepath.Join(dir, "relay.key")},
	}
	var err error
	if k.authority, err = apnstest.NewAuthority(); err != nil {
		return nil, err
	}
	if err := writePEM(k.authorityFile, "CERTIFICATE", k.authority.CertificateDER()); err != nil {
		return nil, err
	}
	provider, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	k.provider = &provider.PublicKey
	if err := writeKey(k.providerFile, provider); err != nil {
		return nil, err
	}
	pair, err := k.authority.ServerCertificate(time.Now().AddDate(1, 0, 0), authority, "127.0.0.1")
	if err != nil {
		return nil, err
	}
	if err := writePair(k.relay, pair); err != nil {
		return nil, err
	}
	return k, k.makeSigner()
}

// makeSigner makes the organization's certificate as its mail server would:
// self-signed, RSA 2048, with a subject key identifier (seed, step 1).
func (k *keys) makeSigner() (err error) {
	if k.signer, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Exchange S2S OAuth"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		SubjectKeyId: []byte{1, 2, 3, 4}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.signer.PublicKey, k.signer)
	if err != nil {
		return err
	}
	k.certificate, err = x509.ParseCertificate(der)
	return err
}

func writePair(files config.TLS, pair tls.Certificate) error {
	if err := writePEM(files.CertificateFile, "CERTIFICATE", pair.Certificate[0]); err != nil {
		return err
	}
	return writeKey(files.KeyFile, pair.PrivateKey)
}

func writeKey(path string, key crypto.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
