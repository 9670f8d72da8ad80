package serve

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/process"
)

// metadata serves the organization's metadata document.
type metadata struct {
	certificate atomic.Pointer[tls.Certificate]
}

// buildMetadata reads the certificate of the metadata listener, if there is one.
func (s *Server) buildMetadata() error {
	if s.config.Metadata.Address == "" {
		return nil
	}
	s.metadata = &metadata{}
	s.reloads = append(s.reloads, func() error { return s.metadata.read(s.config) })
	return s.metadata.read(s.config)
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
func (s *Server) serveMetadata(ctx context.Context, l net.Listener) error {
	shown := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.metadata.certificate.Load(), nil }
	refused := process.RefusedGuests()
	s.own.MustRegister(refused)
	h := process.HTTP{
		Handler: s.daemon.Keys().Handler(), TLS: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: shown},
		Logger: s.component("metadata"), Connections: 128, Public: true, Refused: refused,
	}
	return h.Serve(ctx, l)
}
