package demo

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"time"

	"badgerelay/apns/apnstest"
	"badgerelay/auth/authtest"
	"badgerelay/cmd/badgerelay/internal/config"
)

// keys are everything secret and everything trusted, made for one run.
type keys struct {
	authority     *apnstest.Authority // signs the simulated Apple's and the relay's certificates
	authorityFile string
	provider      *ecdsa.PublicKey // of the .p8 key
	providerFile  string
	relay         config.TLS // of the agents' listener

	signer *authtest.Key // signs the organization's tokens
}

// authority is the name by which the agent reaches the relay.
const authority = "localhost"

func makeKeys(dir string) (*keys, error) {
	k := &keys{
		signer:        authtest.NewKey("Exchange S2S OAuth", time.Now()),
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
	return k, nil
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
