package serve

import (
	"context"
	"errors"
	"net"

	"badgerelay/cmd/internal/process"
)

// buildMetadata reads the certificate of the metadata listener, if there is one.
func (s *Server) buildMetadata() (err error) {
	if s.config.Metadata.Address == "" {
		return nil
	}
	if s.metadata, err = s.certificates.Load("metadata", s.config.Metadata.TLS); err == nil && s.metadata == nil {
		err = errors.New("metadata.tls: the metadata document is not served without it")
	}
	return err
}

// serveMetadata serves the organization's metadata document until ctx is done.
func (s *Server) serveMetadata(ctx context.Context, l net.Listener) error {
	refused := process.RefusedGuests()
	s.Metrics.MustRegister(refused)
	h := process.HTTP{
		Handler: s.daemon.Keys().Handler(), TLS: s.metadata,
		Logger: s.Component("metadata"), Connections: 128, Public: true, Refused: refused,
	}
	return h.Serve(ctx, l)
}
