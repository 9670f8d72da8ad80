package serve

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"

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
		if err == nil {
			if err = giveToGroup(path, c.Local.SocketGroup); err != nil {
				_ = l.Close() // the first error is told
			}
		}
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

// giveToGroup lets a group open the socket; empty: it stays the agent's own group's.
func giveToGroup(path, group string) error {
	if group == "" {
		return nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return fmt.Errorf("local.socket_group: %w", err)
	}
	id, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fmt.Errorf("local.socket_group: this system's groups have no numbers: %w", err)
	}
	if err := os.Chown(path, -1, id); err != nil {
		return fmt.Errorf("local.socket_group: %w; the agent's user has to be in the group %s", err, group)
	}
	return nil
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
