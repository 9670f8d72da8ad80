package config

import (
	"cmp"
	"io/fs"
	"net"
	"strconv"
	"time"

	"badgerelay/cmd/internal/configfile"
)

// defaultOps is the port beside the relay's, so that both fit on one machine.
const defaultOps = "127.0.0.1:9465"

// OpsAddress returns the ops listener's address; empty: it is off.
func (c *Config) OpsAddress() string { return configfile.OpsAddress(c.Ops.Address, defaultOps) }

// DrainTimeout returns the budget of an orderly stop.
func (c *Config) DrainTimeout() time.Duration {
	return cmp.Or(time.Duration(c.DrainBudget), 10*time.Second)
}

// Mode returns the mode of the local socket.
func (l Local) Mode() fs.FileMode {
	mode, err := strconv.ParseUint(l.SocketMode, 8, 9)
	if err != nil {
		return 0o660
	}
	return fs.FileMode(mode)
}

// Encryption returns how the connection is protected: tls, starttls or none.
func (i IMAP) Encryption() string {
	if i.Security != "" {
		return i.Security
	}
	if _, port, err := net.SplitHostPort(i.Address); err == nil && port == "143" {
		return "starttls"
	}
	return "tls"
}

// Host returns the name that the server's certificate must have.
func (i IMAP) Host() string {
	if i.ServerName != "" {
		return i.ServerName
	}
	host, _, err := net.SplitHostPort(i.Address)
	if err != nil {
		return i.Address
	}
	return host
}

// OpsHosts returns the names by which the ops listener is asked, beside loopback
// ones and the address that a request arrives at.
func (c *Config) OpsHosts() []string { return configfile.Hosts(c.OpsAddress(), c.Ops.Hosts) }
