package config

import (
	"cmp"
	"net"
	"strings"
	"time"

	"badgerelay/cmd/internal/configfile"
)

// DefaultPath is read where no file is named, if it exists.
const DefaultPath = "/etc/badgerelay/badgerelay.yaml"

const (
	defaultListen      = "127.0.0.1:8443"
	defaultSocket      = "/run/badgerelay/admin.sock"
	defaultOps         = "127.0.0.1:9464" // the port OpenTelemetry's Prometheus exporters use by default
	defaultRegistry    = "/var/lib/badgerelay/registry.db"
	defaultDrainBudget = 25 * time.Second
	// defaultPrincipal was drawn at random; it only has to differ from the
	// principals of other services that an organization's key signs tokens for.
	defaultPrincipal = "2c5f2d26-0e3d-4f4a-9a67-6b1d5c6f6b0e"
)

// ListenAddress returns the agents' address.
func (c *Config) ListenAddress() string { return cmp.Or(c.Listen.Address, defaultListen) }

// AdminSocket returns the path of the admin socket; empty: TCP is configured.
func (c *Config) AdminSocket() string {
	if c.Admin.Address != "" {
		return ""
	}
	return cmp.Or(c.Admin.Socket, defaultSocket)
}

// OpsAddress returns the ops listener's address; empty: it is off.
func (c *Config) OpsAddress() string { return configfile.OpsAddress(c.Ops.Address, defaultOps) }

// RegistryPath returns the SQLite file; empty: PostgreSQL is configured.
func (c *Config) RegistryPath() string {
	if c.Registry.URL != "" {
		return ""
	}
	return cmp.Or(c.Registry.Path, defaultRegistry)
}

// Principal returns the relay's GUID.
func (c *Config) Principal() string { return cmp.Or(c.Auth.Principal, defaultPrincipal) }

// MetadataTLS returns the certificate of the metadata listener.
func (c *Config) MetadataTLS() TLS {
	if c.Metadata.TLS.Empty() {
		return c.Listen.TLS
	}
	return c.Metadata.TLS
}

// MetadataLocation returns the public address of the metadata document.
func (c *Config) MetadataLocation() string {
	if c.Metadata.Location != "" {
		return c.Metadata.Location
	}
	host := c.ListenAddress()
	if len(c.Auth.Authorities) > 0 {
		host = c.Auth.Authorities[0]
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if _, port, err := net.SplitHostPort(c.Metadata.Address); err == nil && port != "443" {
		host = net.JoinHostPort(strings.Trim(host, "[]"), port)
	}
	return "https://" + host + "/metadata/json/1"
}

// CoalescingWindow returns the window; 0: off.
func (c *Config) CoalescingWindow() time.Duration {
	if c.Relay.CoalescingWindow == nil {
		return time.Second
	}
	return time.Duration(*c.Relay.CoalescingWindow)
}

// Reflection says whether gRPC reflection is offered.
func (c *Config) Reflection() bool { return c.Listen.Reflection == nil || *c.Listen.Reflection }

// SumsAcrossOrganizations says whether SumAcrossOrganizations is on.
func (a *App) SumsAcrossOrganizations() bool {
	return a.SumAcrossOrganizations == nil || *a.SumAcrossOrganizations
}

// FollowMetadata says whether organizations' metadata documents are followed.
func (c *Config) FollowMetadata() bool {
	return c.Auth.FollowMetadata == nil || *c.Auth.FollowMetadata
}

// DrainTimeout returns the budget of an orderly stop.
func (c *Config) DrainTimeout() time.Duration {
	return cmp.Or(time.Duration(c.DrainBudget), defaultDrainBudget)
}

// SampleRatio returns the share of batches traced.
func (c *Config) SampleRatio() float64 { return cmp.Or(c.Tracing.SampleRatio, 0.001) }

// DisplayName returns what subscriptions call the app.
func (a *App) DisplayName() string { return cmp.Or(a.Name, a.Topic) }

// OpsHosts returns the names by which the ops listener is asked, beside loopback
// ones and the address that a request arrives at.
func (c *Config) OpsHosts() []string { return configfile.Hosts(c.OpsAddress(), c.Ops.Hosts) }
