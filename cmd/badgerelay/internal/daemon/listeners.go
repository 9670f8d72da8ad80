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
	d := &listeners{}
	var errs []error
	open := func(field, address string) net.Listener {
		if address == "" {
			return nil
		}
		l, err := process.Listen(address)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", field, address, err))
			return nil
		}
		return l
	}
	d.agents = open("listen.address", c.ListenAddress())
	d.ops = open("ops.address", c.OpsAddress())
	d.metadata = open("metadata.address", c.Metadata.Address)
	if socket := c.AdminSocket(); socket == "" {
		d.admin = open("admin.address", c.Admin.Address)
	} else if l, err := listenSocket(socket); err != nil {
		errs = append(errs, fmt.Errorf("admin.socket %s: %w", socket, err))
	} else {
		d.admin = l
	}
	if len(errs) > 0 {
		d.close()
		return nil, errors.Join(errs...)
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

func address(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

// adminTLS returns the configuration of an admin listener on TCP, nil for a
// socket.
func (d *daemon) adminTLS() (*tls.Config, error) {
	a := d.config.Admin
	if a.Address == "" {
		return nil, nil
	}
	cfg, err := d.certs.load("admin", a.TLS)
	if err != nil {
		return nil, err
	}
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	if cfg.ClientCAs, err = configfile.Pool(a.ClientCAFile); err != nil {
		return nil, fmt.Errorf("admin.client_ca_file: %w", err)
	}
	return cfg, nil
}
