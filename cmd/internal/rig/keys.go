package rig

import (
	"crypto/tls"
	"fmt"

	"badgerelay/auth"
	"badgerelay/auth/certs"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/rig/names"
)

// The files of a rig's directory.
const (
	fileRelayCertificate = "relay.crt"
	fileRelayKey         = "relay.key"
	dirApple             = "apple" // the keys of the simulated Apple
	fileConfig           = "badgerelay.yaml"
	fileSocket           = "admin.sock"
	dirRegistry          = "registry"
	fileRegistry         = "registry.db" // in dirRegistry
	fileLog              = "relay.log"
	fileClock            = "clock"
	fileDisk             = "disk" // the small file system
)

// Issuer returns what signs tokens with the organization's current certificate.
func (o *Organization) Issuer() (*auth.Issuer, error) {
	pair, err := o.store.Current()
	if err != nil {
		return nil, err
	}
	return NewIssuer(pair, o.Name)
}

// NewIssuer returns what signs an organization's tokens for the relays of a rig.
func NewIssuer(pair *certs.Pair, organization string) (*auth.Issuer, error) {
	issuer, err := auth.NewIssuer(auth.IssuerConfig{
		Key: pair.Key, Certificate: pair.Certificate, Realm: organization,
		TargetPrincipal: names.Principal, Authority: names.Authority,
	})
	if err != nil {
		return nil, fmt.Errorf("make the token issuer: %w", err)
	}
	return issuer, nil
}

// AgentTLS is how agents verify the relays of a rig. caFile is Rig.CAFile.
func AgentTLS(caFile string) (*tls.Config, error) {
	config, err := configfile.ClientTLS(caFile)
	if err != nil {
		return nil, err
	}
	config.ServerName = names.Authority
	return config, nil
}
