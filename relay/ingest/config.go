package ingest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"badgerelay/auth"
	"badgerelay/relay"
)

// Config says how a Server works. Relay, Registry and Validator are required;
// the zero value of everything else works. Nothing is read again after New;
// SetApps and SetLimits are what reloads.
type Config struct {
	// Relay takes the events. Required.
	Relay *relay.Relay

	// Registry holds organizations and subscriptions. Required.
	Registry AgentRegistry

	// Validator checks tokens. Required. Whoever builds the process connects it
	// to the registry's change feed, with Tell.
	Validator *auth.Validator

	// Peers are the other relays on the same registry. nil: there are none.
	Peers Peers

	// Reports is what reports of mailboxes tell besides.
	Reports Reports

	// Apps names the apps that subscriptions may name. Empty: none may.
	Apps []string

	// TLS is the listener's. It may load certificates by callback, and so
	// reload them. nil: plain text, for tests and behind a proxy that ends TLS.
	TLS *tls.Config

	// Version and Instance are told to agents in the Welcome, CoalescingWindow too.
	Version, Instance string
	CoalescingWindow  time.Duration

	// MaxBatchEvents is the most events of a batch. 0: 10,000, which is also
	// the contract's upper bound.
	MaxBatchEvents int

	// MaxStreams is the most agent streams open at once. Watches and imports
	// are counted apart, each with the same bound; so are streams that have not said
	// whose they are, and probes, with spareOpenings more. 0: 20,000. Negative: none.
	MaxStreams int

	// MaxOrganizationStreams is the same for one organization, where the
	// organization has no limit of its own. 0: 1,000, which is a site with some
	// hundred agents, their standbys and a restart of all. Negative: none.
	MaxOrganizationStreams int

	// MaxConnections is the most connections open at once, and
	// MaxAddressConnections those from one IP address (of IPv6: one /64). Beyond
	// them connections are closed unheard. 0: 20,000 and 1,000. Negative: none.
	MaxConnections, MaxAddressConnections int

	// MaxConcurrentStreams is the most calls open at once on one connection. 0: 250.
	MaxConcurrentStreams uint32

	// CallsPerSecond is how many unary calls an organization may make, with
	// bursts of two seconds' worth. 0: 200. Negative: any number.
	CallsPerSecond float64

	// PublishEventsPerSecond is how many events an organization may send by
	// Publish, with bursts of two seconds' worth and one full batch at least.
	// Streams need no such quota. 0: 20,000. Negative: any number.
	PublishEventsPerSecond float64

	// HelloTimeout is how long a stream may stay silent before its hello. 0: 10 seconds.
	HelloTimeout time.Duration

	// PublishTimeout is when a Publish without a deadline answers. 0: 30 seconds.
	PublishTimeout time.Duration

	// DrainGrace is how long agents have between the drain notice and the end
	// of their streams. 0: 5 seconds. Negative: none.
	DrainGrace time.Duration

	// DrainTimeout bounds the drain that Run does when its context ends. 0: 20 seconds.
	DrainTimeout time.Duration

	// MinimumVersions is the least version by product, in any case; it adds to
	// and overrides {"Exchange": "15.0.775.38"}. An empty version: none.
	MinimumVersions map[string]string

	// DisableReflection turns the reflection services off.
	DisableReflection bool

	// TracerProvider takes a span of each call. nil: nothing is traced, at no cost.
	TracerProvider trace.TracerProvider

	// Logger takes what an operator has to know. nil: nothing is logged.
	Logger *slog.Logger

	// OrganizationMetrics adds metrics that are labelled by organization, for
	// relays that serve few enough of them.
	OrganizationMetrics bool

	// Registerer takes the metrics. nil: none are registered.
	Registerer prometheus.Registerer
}

// maxBatchEvents is the contract's bound, badgerelay.v1.Batch.
const maxBatchEvents = 10_000

// streamWindow is how many bytes of a stream may be on their way to the relay
// without having been read; a connection has twice that.
const streamWindow = 512 << 10

// idleTimeout ends a connection without a call.
const idleTimeout = 15 * time.Minute

// Validate returns every problem of the configuration at once.
func (c *Config) Validate() error {
	var errs []error
	if c.Relay == nil {
		errs = append(errs, errors.New("relay is missing"))
	}
	if c.Registry == nil {
		errs = append(errs, errors.New("registry is missing"))
	}
	if c.Validator == nil {
		errs = append(errs, errors.New("validator is missing"))
	}
	if c.MaxBatchEvents < 0 || c.MaxBatchEvents > maxBatchEvents {
		errs = append(errs, fmt.Errorf("MaxBatchEvents %d is not 1 to %d", c.MaxBatchEvents, maxBatchEvents))
	}
	if _, err := newProducts(c.MinimumVersions); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *Config) batchEvents() int              { return orDefault(c.MaxBatchEvents, maxBatchEvents) }
func (c *Config) maxStreams() int               { return orDefault(c.MaxStreams, 20_000) }
func (c *Config) organizationStreams() int      { return orDefault(c.MaxOrganizationStreams, 1000) }
func (c *Config) maxConnections() int           { return orDefault(c.MaxConnections, 20_000) }
func (c *Config) maxAddressConnections() int    { return orDefault(c.MaxAddressConnections, 1000) }
func (c *Config) concurrentStreams() uint32     { return orDefault(c.MaxConcurrentStreams, 250) }
func (c *Config) callsPerSecond() float64       { return orDefault(c.CallsPerSecond, 200) }
func (c *Config) eventsPerSecond() float64      { return orDefault(c.PublishEventsPerSecond, 20_000) }
func (c *Config) helloTimeout() time.Duration   { return orDefault(c.HelloTimeout, 10*time.Second) }
func (c *Config) publishTimeout() time.Duration { return orDefault(c.PublishTimeout, 30*time.Second) }
func (c *Config) drainGrace() time.Duration     { return max(0, orDefault(c.DrainGrace, 5*time.Second)) }
func (c *Config) drainTimeout() time.Duration   { return orDefault(c.DrainTimeout, 20*time.Second) }

func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

// orDefault returns v, or def where v is the zero value.
func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
