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

// listeners are where the relay is reached.
type listeners struct {
	process.Listeners
	agents, admin, ops, metadata net.Listener // ops and metadata may be nil
}

func openListeners(c *config.Config) (*listeners, error) {
	d := new(listeners)
	d.agents = d.Open("listen.address", c.ListenAddress(), process.Listen)
	d.ops = d.Open("ops.address", c.OpsAddress(), process.Listen)
	d.metadata = d.Open("metadata.address", c.Metadata.Address, process.Listen)
	if socket := c.AdminSocket(); socket != "" {
		d.admin = d.Open("admin.socket", socket, listenSocket)
	} else {
		d.admin = d.Open("admin.address", c.Admin.Address, process.Listen)
	}
	return d, d.Err()
}

func listenSocket(path string) (net.Listener, error) {
	l, err := process.ListenSocket(path, 0o600)
	if errors.Is(err, process.ErrSocketInUse) {
		return nil, fmt.Errorf("another badgerelay is running: %w", err)
	}
	return l, err
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
