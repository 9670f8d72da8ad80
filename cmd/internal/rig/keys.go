package rig

import (
	"context"
	"fmt"

	"badgerelay/auth"
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

// Token signs a token of the first organization with its current certificate.
func (r *Rig) Token(ctx context.Context) (string, error) {
	o := r.Organizations[0]
	pair, err := o.store.Current()
	if err != nil {
		return "", err
	}
	issuer, err := auth.NewIssuer(auth.IssuerConfig{
		Key: pair.Key, Certificate: pair.Certificate, Realm: o.Name,
		TargetPrincipal: names.Principal, Authority: names.Authority,
	})
	if err != nil {
		return "", fmt.Errorf("make the token issuer: %w", err)
	}
	token, _, err := issuer.Token(ctx, "")
	return token, err
}
