package daemon

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"badgerelay/auth/authmetadata"
	"badgerelay/auth/certs"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/process"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// startMetadata serves the relay's auth metadata document, where configured.
func (d *daemon) startMetadata(lifecycle *process.Lifecycle, listeners *listeners) error {
	if listeners.metadata == nil {
		return nil
	}
	names := authorities(d.config, listeners)
	handler, err := authmetadata.NewHandler(authmetadata.HandlerConfig{
		Principal: d.config.Principal(), Authorities: names,
		Location: d.config.MetadataLocation(), Relay: "https://" + names[0],
	})
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	tlsConfig, err := d.certs.Load("metadata", d.config.MetadataTLS())
	if err != nil {
		return err
	}
	d.StartMetadata(lifecycle, listeners.metadata, handler, tlsConfig)
	return nil
}

// newFollower returns what follows the metadata documents of organizations,
// nil where that is switched off.
func (d *daemon) newFollower() (*authmetadata.Follower, error) {
	if !d.config.FollowMetadata() {
		return nil, nil
	}
	client, err := followClient(d.config.Auth.FollowCAFile)
	if err != nil {
		return nil, err
	}
	return authmetadata.NewFollower(authmetadata.FollowerConfig{
		Sources: d.followed, Found: d.foundKey, Client: client, Interval: time.Duration(d.config.Auth.FollowInterval),
		Logger: d.Component("auth"), Registerer: d.Metrics,
	})
}

// followClient trusts the authorities in the file, or the system's.
func followClient(authorities string) (*http.Client, error) {
	cfg, err := configfile.ClientTLS(authorities)
	if err != nil {
		return nil, fmt.Errorf("auth.follow_ca_file: %w", err)
	}
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: cfg, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 16 << 10, IdleConnTimeout: time.Minute,
	}}, nil
}

// followed lists the enabled organizations with a metadata address.
func (d *daemon) followed(ctx context.Context) ([]authmetadata.Source, error) {
	var sources []authmetadata.Source
	page := registry.Page{Size: registry.MaxPageSize}
	for {
		organizations, next, err := d.registry.ListOrganizations(ctx, registry.OrganizationFilter{}, page)
		if err != nil {
			return nil, err
		}
		for _, o := range organizations {
			if o.Enabled && o.MetadataURL != "" {
				sources = append(sources, authmetadata.Source{OrganizationID: int64(o.ID), Organization: o.Name, URL: o.MetadataURL})
			}
		}
		if next == "" {
			return sources, nil
		}
		page.Token = next
	}
}

// foundKey registers a certificate that an organization has published, unless
// the operator has removed it: a document that still shows it does not bring
// it back, not after a restart either.
func (d *daemon) foundKey(ctx context.Context, source authmetadata.Source, certificate *x509.Certificate) error {
	_, err := d.registry.AddCredential(ctx, relay.OrganizationID(source.OrganizationID), registry.NewCredential{
		Certificate: certificate.Raw, Published: true,
	})
	switch {
	case errors.Is(err, registry.ErrCredentialRemoved):
		d.Component("auth").Info("published key was removed before and stays so", "organization", source.Organization, "thumbprint", certs.Thumbprint(certificate))
		return nil
	case errors.Is(err, registry.ErrCredentialExists):
		return nil
	}
	if err == nil {
		d.Component("auth").Info("published key registered", "organization", source.Organization, "thumbprint", certs.Thumbprint(certificate))
	}
	return err
}
