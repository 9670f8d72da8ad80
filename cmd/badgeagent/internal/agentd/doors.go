package agentd

import (
	"errors"
	"fmt"
	"net"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/process"
)

// doors are the listeners. All of them are opened before anything else, so that
// a second agent on the same machine finds out at once.
type doors struct {
	ops      net.Listener // nil: off
	metadata net.Listener // nil: off
	local    []net.Listener
}

func openDoors(c *config.Config) (*doors, error) {
	d := &doors{}
	var errs []error
	note := func(field, address string, l net.Listener, err error) net.Listener {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", field, address, err))
			return nil
		}
		return l
	}
	if a := c.OpsAddress(); a != "" {
		l, err := net.Listen("tcp", a)
		d.ops = note("ops.address", a, l, err)
	}
	if a := c.Metadata.Address; a != "" {
		l, err := net.Listen("tcp", a)
		d.metadata = note("metadata.address", a, l, err)
	}
	if path := c.Local.Socket; path != "" {
		l, err := process.ListenSocket(path, c.Local.Mode())
		d.local = append(d.local, note("local.socket", path, l, err))
	}
	if a := c.Local.Address; a != "" {
		l, err := net.Listen("tcp", a)
		d.local = append(d.local, note("local.address", a, l, err))
	}
	if len(errs) > 0 {
		d.close()
		return nil, errors.Join(errs...)
	}
	return d, nil
}

// close closes what nobody serves; a served listener is closed already.
func (d *doors) close() {
	for _, l := range append(d.local, d.ops, d.metadata) {
		if l != nil {
			_ = l.Close() // closed twice is no harm
		}
	}
}

func (d *doors) localAddresses() []string {
	var all []string
	for _, l := range d.local {
		all = append(all, l.Addr().String())
	}
	return all
}

func address(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}
