package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Validate returns every problem of the configuration, joined, without lines;
// Load gives them lines. It looks at the files that the configuration names.
func (c *Config) Validate() error {
	var errs []error
	for _, p := range c.problems("", nil) {
		if !p.Warning {
			errs = append(errs, p)
		}
	}
	return errors.Join(errs...)
}

// checker gathers problems; it knows where each field stands.
type checker struct {
	file  string
	lines map[string]int
	found []*Problem
}

func (c *Config) problems(file string, lines map[string]int) []*Problem {
	k := &checker{file: file, lines: lines}
	c.checkListeners(k)
	c.checkAuth(k)
	c.checkRelay(k)
	c.checkApps(k)
	c.checkOperation(k)
	return k.found
}

func (k *checker) bad(field, format string, args ...any) {
	k.found = append(k.found, &Problem{File: k.file, Line: k.line(field), Field: field, Text: fmt.Sprintf(format, args...)})
}

func (k *checker) warn(field, format string, args ...any) {
	k.bad(field, format, args...)
	k.found[len(k.found)-1].Warning = true
}

// line returns the line of the field or of the nearest group around it that
// is in the file.
func (k *checker) line(field string) int {
	for field != "" {
		if line, ok := k.lines[field]; ok {
			return line
		}
		field = field[:max(strings.LastIndexAny(field, ".["), 0)]
	}
	return 0
}

func (c *Config) checkListeners(k *checker) {
	k.address("listen.address", c.ListenAddress())
	switch {
	case !c.Listen.TLS.empty():
		k.tls("listen.tls", c.Listen.TLS)
	case !Loopback(c.ListenAddress()):
		k.bad("listen.tls", "certificate_file and key_file are required: without TLS the relay listens on loopback only, and %s is not", c.ListenAddress())
	}
	c.checkAdmin(k)
	if address := c.OpsAddress(); address != "" {
		k.address("ops.address", address)
	}
	c.checkMetadata(k)
}

// A socket's path must fit in sockaddr_un.sun_path: 108 bytes with the final
// zero (Linux unix(7), read 2026-11).
const maxSocketPath = 107

func (c *Config) checkAdmin(k *checker) {
	a := c.Admin
	if a.Address == "" {
		if len(c.AdminSocket()) > maxSocketPath {
			k.bad("admin.socket", "the path has %d bytes, the system allows %d", len(c.AdminSocket()), maxSocketPath)
		}
		if !a.TLS.empty() || a.ClientCAFile != "" {
			k.bad("admin", "tls and client_ca_file belong to admin.address, which is not set")
		}
		return
	}
	if a.Socket != "" {
		k.bad("admin", "socket and address exclude each other")
	}
	k.address("admin.address", a.Address)
	k.tls("admin.tls", a.TLS)
	if a.ClientCAFile == "" {
		k.bad("admin.client_ca_file", "is required with admin.address: operators must prove who they are")
		return
	}
	k.authorities("admin.client_ca_file", a.ClientCAFile)
}

func (c *Config) checkMetadata(k *checker) {
	if c.Metadata.Address == "" {
		if c.Metadata.TLS != (TLS{}) || c.Metadata.Location != "" {
			k.bad("metadata", "tls and location are of no use without metadata.address")
		}
		return
	}
	k.address("metadata.address", c.Metadata.Address)
	if c.MetadataTLS().empty() {
		k.bad("metadata.tls", "the document is served over HTTPS only: give certificate_file and key_file here or in listen.tls")
	}
	if !c.Metadata.TLS.empty() {
		k.tls("metadata.tls", c.Metadata.TLS)
	}
	if c.Metadata.Location == "" {
		return
	}
	if u, err := url.Parse(c.Metadata.Location); err != nil || u.Scheme != "https" || u.Host == "" {
		k.bad("metadata.location", "%q is not an https:// address", c.Metadata.Location)
	}
}

var guid = regexp.MustCompile(`^(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func (c *Config) checkAuth(k *checker) {
	a := c.Auth
	if a.Principal != "" && !guid.MatchString(a.Principal) {
		k.bad("auth.principal", "%q is not a GUID such as %s", a.Principal, defaultPrincipal)
	}
	for i, authority := range a.Authorities {
		if authority == "" || strings.ContainsAny(authority, "/@ ") {
			k.bad(fmt.Sprintf("auth.authorities[%d]", i), "%q is not host or host:port", authority)
		}
	}
	if len(a.Authorities) == 0 && !Loopback(c.ListenAddress()) {
		k.bad("auth.authorities", "is required: the names by which agents reach this relay, such as relay.example.com:8443")
	}
	k.duration("auth.clock_skew", a.ClockSkew, 0, time.Hour)
	k.duration("auth.max_token_span", a.MaxTokenSpan, time.Minute, 168*time.Hour)
	k.number("auth.cache_size", a.CacheSize, 16, 1<<24)
	k.duration("auth.follow_interval", a.FollowInterval, time.Hour, 168*time.Hour)
	if a.FollowCAFile != "" {
		k.authorities("auth.follow_ca_file", a.FollowCAFile)
	}
}

func (c *Config) checkRelay(k *checker) {
	r := c.Relay
	if r.CoalescingWindow != nil {
		k.duration("relay.coalescing_window", *r.CoalescingWindow, 0, time.Minute)
	}
	k.duration("relay.refresh_after", r.RefreshAfter, time.Minute, 365*24*time.Hour)
	k.duration("relay.retry_after_server_error", r.RetryAfterServerError, time.Second, 24*time.Hour)
	k.number("relay.max_mailboxes", r.MaxMailboxes, 1000, 1<<28)
	k.duration("registry.subscription_lifetime", c.Registry.SubscriptionLifetime, time.Hour, 10*365*24*time.Hour)
}

var version = regexp.MustCompile(`^[0-9]{1,9}(\.[0-9]{1,9}){0,7}$`)

func (c *Config) checkOperation(k *checker) {
	for product, v := range c.Products {
		field := "products." + product
		if product == "" || len(product) > 64 {
			k.bad(field, "a product's name has 1 to 64 bytes")
		}
		if v != "" && !version.MatchString(v) {
			k.bad(field, "%q is not a version such as 15.0.775.38", v)
		}
	}
	l := c.Limits
	k.number("limits.streams", l.Streams, 1, 1<<20)
	k.number("limits.streams_per_organization", l.StreamsPerOrganization, 1, 1<<20)
	k.number("limits.batch_events", l.BatchEvents, 1, 10000)
	k.rate("limits.calls_per_second", l.CallsPerSecond, 0.001, 1e6)
	k.rate("limits.publish_events_per_second", l.PublishEventsPerSecond, 1, 1e9)
	if _, ok := logLevels[c.Log.Level]; !ok {
		k.bad("log.level", "%q is not one of debug, info, warn, error", c.Log.Level)
	}
	k.oneOf("log.format", c.Log.Format, "json", "text")
	k.oneOf("log.mailboxes", c.Log.Mailboxes, "hashed", "clear")
	k.rate("tracing.sample_ratio", c.Tracing.SampleRatio, 0, 1)
	k.duration("drain_budget", c.DrainBudget, time.Second, time.Hour)
}

// Loopback says whether address, host:port, is reached from this machine only.
// A name other than localhost counts as reachable from elsewhere.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func (k *checker) address(field, address string) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		k.bad(field, "%q is not host:port", address)
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		k.bad(field, "the port %q is not a number from 0 to 65535", port)
	} else if n == 0 && !Loopback(address) {
		k.warn(field, "port 0 lets the system choose another port at each start")
	}
}

func (k *checker) duration(field string, d Duration, low, high time.Duration) {
	if d != 0 && (time.Duration(d) < low || time.Duration(d) > high) {
		k.bad(field, "%s is outside %s to %s", d, low, high)
	}
}

func (k *checker) number(field string, n, low, high int) {
	if n != 0 && (n < low || n > high) {
		k.bad(field, "%d is outside %d to %d", n, low, high)
	}
}

func (k *checker) rate(field string, r, low, high float64) {
	if r != 0 && !(r >= low && r <= high) { // so that NaN is outside
		k.bad(field, "%v is outside %v to %v", r, low, high)
	}
}

func (k *checker) oneOf(field, value string, words ...string) {
	if value == "" {
		return
	}
	for _, w := range words {
		if value == w {
			return
		}
	}
	k.bad(field, "%q is not one of %s", value, strings.Join(words, ", "))
}
