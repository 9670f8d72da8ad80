package demo

import (
	"crypto/ecdsa"
	"os"
	"path/filepath"
	"time"

	"badgerelay/apns/apnstest"
	"badgerelay/auth/authtest"
	"badgerelay/cmd/badgerelay/internal/config"
)

// keys are everything secret and everything trusted, made for one run.
type keys struct {
	apple     *apnstest.Authority
	appleFile string
	provider  *ecdsa.PublicKey // of the .p8 key
	keyFile   string
	relay     *authtest.Server // of the agents' listener
	relayTLS  config.TLS

	signer *authtest.Key // signs the organization's tokens
}

// authority is the name by which the agent reaches the relay.
const authority = "localhost"

func makeKeys(dir string) (k *keys, err error) {
	k = &keys{
		appleFile: filepath.Join(dir, "apple.crt"), keyFile: filepath.Join(dir, "provider.p8"),
		relay:    authtest.NewServer("relay", time.Now().AddDate(1, 0, 0), authority, "127.0.0.1"),
		relayTLS: config.TLS{CertificateFile: filepath.Join(dir, "relay.crt"), KeyFile: filepath.Join(dir, "relay.key")},
		signer:   authtest.NewKey("Exchange S2S OAuth", time.Now()),
	}
	if k.apple, err = apnstest.NewAuthority(); err != nil {
		return nil, err
	}
	if err := os.WriteFile(k.appleFile, k.apple.PEM(), 0o600); err != nil {
		return nil, err
	}
	if k.provider, err = apnstest.WriteSigningKey(k.keyFile); err != nil {
		return nil, err
	}
	return k, k.relay.Write(k.relayTLS.CertificateFile, k.relayTLS.KeyFile)
}
