package serve

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/process"
)

// listeners are where the server is reached.
type listeners struct {
	process.Listeners
	ops      net.Listener // nil: off
	metadata net.Listener // nil: off
	local    []net.Listener
}

func listen(c *config.Config) (*listeners, error) {
	all := new(listeners)
	all.ops = all.Open("ops.address", c.OpsAddress(), process.Listen)
	all.metadata = all.Open("metadata.address", c.Metadata.Address, process.Listen)
	socket := func(path string) (net.Listener, error) { return listenSocket(path, c.Local) }
	for _, l := range []net.Listener{
		all.Open("local.socket", c.Local.Socket, socket),
		all.Open("local.address", c.Local.Address, process.Listen),
	} {
		if l != nil {
			all.local = append(all.local, l)
		}
	}
	return all, all.Err()
}

func listenSocket(path string, c config.Local) (net.Listener, error) {
	l, err := process.ListenSocket(path, c.Mode())
	if err != nil {
		return nil, err
	}
	if err := giveToGroup(path, c.SocketGroup); err != nil {
		_ = l.Close() // the first error is told
		return nil, err
	}
	return l, nil
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

func (l *listeners) localAddresses() []string {
	var all []string
	for _, each := range l.local {
		all = append(all, each.Addr().String())
	}
	return all
}
