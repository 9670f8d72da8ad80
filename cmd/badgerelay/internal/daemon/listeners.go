package daemon

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/process"
)

// listeners are where the relay is reached. All of them are opened before anything else, so that
// a second relay on the same machine finds out at once and touches nothing.
type listeners struct {
	agents, admin, ops, metadata net.Listener // ops and metadata may be nil
}

func openListeners(c *config.Config) (*listeners, error) {
	var opening process.Opening
	d := &listeners{
		agents:   opening.Open("listen.address", c.ListenAddress(), process.Listen),
		ops:      opening.Open("ops.address", c.OpsAddress(), process.Listen),
		metadata: opening.Open("metadata.address", c.Metadata.Address, process.Listen),
	}
	if socket := c.AdminSocket(); socket != "" {
		d.admin = opening.Open("admin.socket", socket, listenSocket)
	} else {
		d.admin = opening.Open("admin.address", c.Admin.Address, process.Listen)
	}
	if err := opening.Err(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// listenSocket opens the admin socket.
func listenSocket(path string) (net.Listener, error) {
	l, err := process.ListenSocket(path, 0o600)
	if errors.Is(err, process.ErrSocketInUse) {
		return nil, fmt.Errorf("another badgerelay is running: %w", err)
	}
	return l, err
}

// close closes what nobody serves; a served listener is closed already.
func (d *listeners) close() {
	for _, l := range []net.Listener{d.agents, d.admin, d.ops, d.metadata} {
		if l != nil {
			_ = l.Close() // closed twice is no harm
		}
	}
}

// adminTLS returns the configuration of an admin listener on TCP, nil for a
// socket.
func (d *daemon) adminTLS() (*tls.Config, error) {
	a := d.config.Admin
	if a.Address == "" {
		return nil, nil
	}
	cfg, err := d.certs.Load("admin", a.TLS)
	if err != nil {
		return nil, err
	}
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	if cfg.ClientCAs, err = configfile.Pool(a.ClientCAFile); err != nil {
		return nil, fmt.Errorf("admin.client_ca_file: %w", err)
	}
	return cfg, nil
}
