package config

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"badgerelay/auth/audience"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/relay/registry"
)

// Validate returns every problem of the configuration, joined, without lines;
// Load gives them lines. It looks at the files that the configuration names.
func (c *Config) Validate() error {
	k := new(configfile.Checker)
	c.check(k)
	_, err := configfile.Sort(k.Found)
	return err
}

func (c *Config) check(k *configfile.Checker) {
	c.checkListeners(k)
	c.checkAuth(k)
	c.checkRegistry(k)
	c.checkRelay(k)
	c.checkApps(k)
	c.checkOperation(k)
}

func (c *Config) checkListeners(k *configfile.Checker) {
	k.Listen("listen.address", c.ListenAddress())
	switch {
	case !c.Listen.TLS.Empty():
		warnForeign(k, "listen.tls", k.KeyPair("listen.tls", c.Listen.TLS), "auth.authorities", c.Auth.Authorities)
	case !configfile.Loopback(c.ListenAddress()):
		k.Bad("listen.tls", "certificate_file and key_file are required: without TLS the relay listens on loopback only, and %s is not", c.ListenAddress())
	}
	c.checkAdmin(k)
	if address := c.OpsAddress(); address != "" {
		k.Listen("ops.address", address)
	}
	c.checkMetadata(k)
}

func (c *Config) checkAdmin(k *configfile.Checker) {
	a := c.Admin
	if a.Address == "" {
		k.Socket("admin.socket", c.AdminSocket())
		if !a.TLS.Empty() || a.ClientCAFile != "" {
			k.Bad("admin", "tls and client_ca_file belong to admin.address, which is not set")
		}
		return
	}
	if a.Socket != "" {
		k.Bad("admin", "socket and address exclude each other")
	}
	k.Listen("admin.address", a.Address)
	k.KeyPair("admin.tls", a.TLS)
	if a.ClientCAFile == "" {
		k.Bad("admin.client_ca_file", "is required with admin.address: operators must prove who they are")
		return
	}
	k.Authorities("admin.client_ca_file", a.ClientCAFile)
}

func (c *Config) checkMetadata(k *configfile.Checker) {
	if c.Metadata.Address == "" {
		if !configfile.Loopback(c.ListenAddress()) {
			k.Warn("metadata.address", "is not set: this relay serves no metadata document, from which badgeagent learns whom its tokens are meant for")
		}
		if c.Metadata.TLS != (TLS{}) || c.Metadata.Location != "" {
			k.Bad("metadata", "tls and location are of no use without metadata.address")
		}
		return
	}
	k.Listen("metadata.address", c.Metadata.Address)
	if c.MetadataTLS().Empty() {
		k.Bad("metadata.tls", "the document is served over HTTPS only: give certificate_file and key_file here or in listen.tls")
	}
	var certificate *x509.Certificate
	if !c.Metadata.TLS.Empty() {
		certificate = k.KeyPair("metadata.tls", c.Metadata.TLS)
	}
	if c.Metadata.Location == "" {
		return
	}
	if u, err := url.Parse(c.Metadata.Location); err != nil || u.Scheme != "https" || u.Host == "" {
		k.Bad("metadata.location", "%q is not an https:// address", c.Metadata.Location)
	} else {
		warnForeign(k, "metadata.tls", certificate, "metadata.location", []string{u.Host})
	}
	k.URLPort("metadata.location", c.Metadata.Location)
}

// warnForeign warns of a certificate without names by which others reach the listener
// that shows it. It is no error: a proxy may end TLS in between. nil: there is none.
func warnForeign(k *configfile.Checker, field string, certificate *x509.Certificate, from string, addresses []string) {
	if certificate == nil {
		return
	}
	if foreign := configfile.Foreign(certificate, addresses); foreign != "" {
		k.Warn(field+".certificate_file", "%s (%s)", foreign, from)
	}
}

var guid = regexp.MustCompile(`^(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func (c *Config) checkAuth(k *configfile.Checker) {
	a := c.Auth
	if a.Principal != "" && !guid.MatchString(a.Principal) {
		k.Bad("auth.principal", "%q is not a GUID such as %s", a.Principal, defaultPrincipal)
	}
	for i, authority := range a.Authorities {
		if !audience.IsAuthority(authority) {
			bad := cmp.Or(configfile.BadURLPort("https://"+authority), fmt.Sprintf("%q is not host or host:port", authority))
			k.Bad(fmt.Sprintf("auth.authorities[%d]", i), "%s", bad)
		}
	}
	if len(a.Authorities) == 0 && !configfile.Loopback(c.ListenAddress()) {
		k.Bad("auth.authorities", "is required: the names by which agents reach this relay, such as relay.example.com:8443")
	}
	k.Duration("auth.clock_skew", a.ClockSkew, 0, time.Hour)
	k.Duration("auth.max_token_span", a.MaxTokenSpan, time.Minute, 168*time.Hour)
	k.Number("auth.cache_size", a.CacheSize, 16, 1<<24)
	k.Duration("auth.follow_interval", a.FollowInterval, time.Hour, 168*time.Hour)
	k.Authorities("auth.follow_ca_file", a.FollowCAFile)
}

func (c *Config) checkRegistry(k *configfile.Checker) {
	r := c.Registry
	k.Duration("registry.subscription_lifetime", r.SubscriptionLifetime, time.Hour, 10*365*24*time.Hour)
	if r.URL == "" {
		if r.PasswordFile != "" {
			k.Bad("registry.password_file", "belongs to registry.url, which is not set")
		}
		if bad, ok := errors.AsType[*registry.InvalidError](registry.CheckFile(c.RegistryPath())); ok {
			k.Bad("registry.path", "%s %s", c.RegistryPath(), bad.Detail)
		}
		return
	}
	if r.Path != "" {
		k.Bad("registry", "path and url exclude each other")
	}
	if hasPassword(r.URL) {
		k.Bad("registry.url", "holds a password: put it into a file and name that in registry.password_file")
	} else if err := registry.CheckPostgresURL(r.URL); err != nil {
		k.Bad("registry.url", "%v", err)
	}
	if r.PasswordFile != "" {
		k.Secret("registry.password_file", r.PasswordFile)
	}
}

// hasPassword looks into both forms that libpq knows.
func hasPassword(address string) bool {
	if u, err := url.Parse(address); err == nil && u.Scheme != "" {
		_, set := u.User.Password()
		return set || u.Query().Has("password")
	}
	return strings.HasPrefix(address, "password") || strings.Contains(address, " password")
}

func (c *Config) checkRelay(k *configfile.Checker) {
	r := c.Relay
	if r.CoalescingWindow != nil {
		k.Duration("relay.coalescing_window", *r.CoalescingWindow, 0, time.Minute)
	}
	k.Duration("relay.refresh_after", r.RefreshAfter, time.Minute, 365*24*time.Hour)
	k.Duration("relay.retry_after_server_error", r.RetryAfterServerError, time.Second, 24*time.Hour)
	k.Number("relay.max_mailboxes", r.MaxMailboxes, 1000, 1<<28)
}

var version = regexp.MustCompile(`^[0-9]{1,9}(\.[0-9]{1,9}){0,7}$`)

func (c *Config) checkOperation(k *configfile.Checker) {
	for product, v := range c.Products {
		field := "products." + product
		if product == "" || len(product) > 64 {
			k.Bad(field, "a product's name has 1 to 64 bytes")
		}
		if v != "" && !version.MatchString(v) {
			k.Bad(field, "%q is not a version such as 15.0.775.38", v)
		}
	}
	l := c.Limits
	k.Number("limits.connections", l.Connections, 1, 1<<20)
	k.Number("limits.connections_per_address", l.ConnectionsPerAddress, 1, 1<<20)
	k.Number("limits.streams", l.Streams, 1, 1<<20)
	k.Number("limits.streams_per_organization", l.StreamsPerOrganization, 1, 1<<20)
	k.Number("limits.batch_events", l.BatchEvents, 1, 10000)
	k.Rate("limits.calls_per_second", l.CallsPerSecond, 0.001, 1e6)
	k.Rate("limits.publish_events_per_second", l.PublishEventsPerSecond, 1, 1e9)
	k.Log("log", c.Log)
	k.Rate("tracing.sample_ratio", c.Tracing.SampleRatio, 0, 1)
	k.Duration("drain_budget", c.DrainBudget, time.Second, time.Hour)
}
