package serve

import (
	"errors"
	"fmt"
	"net"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/process"
)

// listeners are where the server is reached. All of them are opened before anything else, so that
// a second agent on the same machine finds out at once.
type listeners struct {
	ops      net.Listener // nil: off
	metadata net.Listener // nil: off
	local    []net.Listener
}

func listen(c *config.Config) (*listeners, error) {
	open := &listeners{}
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
		open.ops = note("ops.address", a, l, err)
	}
	if a := c.Metadata.Address; a != "" {
		l, err := net.Listen("tcp", a)
		open.metadata = note("metadata.address", a, l, err)
	}
	if path := c.Local.Socket; path != "" {
		l, err := process.ListenSocket(path, c.Local.Mode())
		open.local = append(open.local, note("local.socket", path, l, err))
	}
	if a := c.Local.Address; a != "" {
		l, err := net.Listen("tcp", a)
		open.local = append(open.local, note("local.address", a, l, err))
	}
	if len(errs) > 0 {
		open.close()
		return nil, errors.Join(errs...)
	}
	return open, nil
}

// close closes what nobody serves; a served listener is closed already.
func (l *listeners) close() {
	for _, each := range append(l.local, l.ops, l.metadata) {
		if each != nil {
			_ = each.Close() // closed twice is no harm
		}
	}
}

func (l *listeners) localAddresses() []string {
	var all []string
	for _, each := range l.local {
		all = append(all, each.Addr().String())
	}
	return all
}

func address(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}
