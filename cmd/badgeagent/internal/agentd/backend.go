package agentd

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/process"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/backend"
)

// buildBackend mounts the API for app back ends.
func (d *Daemon) buildBackend() error {
	d.backend = backend.New(d.client, d.component("backend"), d.own)
	if err := d.local.Handle("/v1/", d.config.Local.TokenFile, d.backend); err != nil {
		return fmt.Errorf("local.token_file: %w", err)
	}
	return nil
}

// settled has dead device tokens told to the back end at once.
func (d *Daemon) settled(r agent.Result) {
	if len(r.Removed) > 0 {
		d.backend.Removed()
	}
}

// metadata serves the organization's metadata document.
type metadata struct {
	certificate atomic.Pointer[tls.Certificate]
}

// buildMetadata reads the certificate of the metadata listener, if there is one.
func (d *Daemon) buildMetadata() error {
	if d.config.Metadata.Address == "" {
		return nil
	}
	d.metadata = &metadata{}
	d.reloads = append(d.reloads, func() error { return d.metadata.read(d.config) })
	return d.metadata.read(d.config)
}

func (m *metadata) read(c *config.Config) error {
	certificate, err := tls.LoadX509KeyPair(c.Metadata.TLS.CertificateFile, c.Metadata.TLS.KeyFile)
	if err != nil {
		return fmt.Errorf("metadata.tls: %w", err)
	}
	m.certificate.Store(&certificate)
	return nil
}

// serveMetadata serves it until ctx is done.
func (d *Daemon) serveMetadata(ctx context.Context, l net.Listener) error {
	shown := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return d.metadata.certificate.Load(), nil }
	return process.ServeHTTP(ctx, l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: shown}, d.keys.Handler(), d.component("metadata"))
}
