package apns

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Environment is Apple's: production or development.
type Environment uint8

// The environments. Sandbox is what Apple's pages call development.
const (
	Production Environment = iota
	Sandbox
)

// String returns "production" or "sandbox".
func (e Environment) String() string {
	if e == Sandbox {
		return "sandbox"
	}
	return "production"
}

// Addr returns Apple's host and port. Source: Apple, "Sending notification
// requests to APNs" (read 2026-11); port 2197 is accepted as well.
func (e Environment) Addr() string {
	if e == Sandbox {
		return "api.sandbox.push.apple.com:443"
	}
	return "api.push.apple.com:443"
}

// Engine says which client carries the pushes.
type Engine string

// The engines.
const (
	EngineNative    Engine = "native" // frames written by hand
	EngineReference Engine = "apns2"  // github.com/sideshow/apns2
)

// Config configures a Pool.
type Config struct {
	// App is the name that metrics and logs carry. Needed.
	App string
	// Topic is the app's bundle id. Needed, save with a certificate for one
	// topic.
	Topic string
	// Environment chooses Apple's host where Addr is empty.
	Environment Environment
	// Addr is host:port; empty: Apple's, by Environment.
	Addr string
	// Engine; empty: EngineNative.
	Engine Engine

	// Token or Certificate, exactly one. SetCredential replaces it.
	Token       *TokenSource
	Certificate *tls.Certificate

	// RootCAs that the server's certificate must chain to; nil: the system's.
	RootCAs *x509.CertPool
	// Proxy reached with HTTP CONNECT: http or https, with user and password
	// if it wants them. nil: none; the environment is not looked at.
	Proxy *url.URL

	// MaxConns is how many connections at most; 0: 8.
	MaxConns int
	// MaxStreams is how many pushes at most in flight on one connection, where
	// Apple grants more; 0: 1000, at most 8192. EngineReference needs a
	// goroutine for each.
	MaxStreams int
	// ConnectsPerSecond bounds how fast connections are opened, failures
	// included; 0: 2. Apple treats churn as an attack.
	ConnectsPerSecond float64
	// IdleTimeout is after which time without a push a connection is closed,
	// as long as another is left; 0: 10 minutes, negative: never.
	IdleTimeout time.Duration
	// Lifetime is how long APNs keeps a push for a device that is off; it is
	// rounded up to the hour. 0: 3 days; negative: not kept. Apple keeps none
	// longer than 30 days.
	Lifetime time.Duration
	// AnswerTimeout is after which time without an answer a connection is asked
	// with a PING whether it lives; 0: 10 s. A push is given up after three times
	// that.
	AnswerTimeout time.Duration
	// PingTimeout is how long the answer to a PING may take; 0: 5 s.
	PingTimeout time.Duration
	// DrainTimeout is how long Run waits for answers after ctx is done; 0: 10 s.
	DrainTimeout time.Duration
	// ConnectTimeout is how long one attempt, TLS included, may take; 0: 15 s.
	ConnectTimeout time.Duration

	// Random returns a number from 0 to n-1, for pauses and for the choice of
	// addresses; n is positive. It is called from many goroutines. nil:
	// math/rand/v2.
	Random func(n int64) int64

	// Source is where the work comes from. nil: Push only.
	Source Source
	// Logger; nil: slog.Default.
	Logger *slog.Logger
	// Metrics; nil: none.
	Metrics *Metrics

	// Dial opens the transport below TLS; nil: TCP. With Dial and without
	// Lookup, addr is Addr as it stands.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Lookup resolves the host before each connection, uncached, as Apple asks;
	// nil: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Bounds of ours; what Apple grants is lower.
const (
	defaultMaxConns   = 8
	defaultMaxStreams = 1000
	maxMaxStreams     = 8192
	maxLifetime       = 30 * 24 * time.Hour // Apple, "Sending notification requests to APNs" (read 2026-11)
)

// Validate returns every problem at once.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.App == "" {
		bad("app is empty")
	}
	if (c.Token == nil) == (c.Certificate == nil) {
		bad("exactly one of token and certificate is needed")
	}
	if c.Topic == "" && c.Token != nil {
		bad("topic is empty")
	}
	if len(c.Topic) > 255 || strings.ContainsFunc(c.Topic, func(r rune) bool { return r <= ' ' || r > '~' }) {
		bad("topic %q is not a bundle id", c.Topic)
	}
	if c.Addr != "" {
		if _, _, err := net.SplitHostPort(c.Addr); err != nil {
			bad("address %q: %w", c.Addr, err)
		}
	}
	switch c.Engine {
	case "", EngineNative, EngineReference:
	default:
		bad("engine %q is neither native nor apns2", c.Engine)
	}
	if c.Proxy != nil && (c.Proxy.Host == "" || c.Proxy.Scheme != "http" && c.Proxy.Scheme != "https") {
		bad("proxy is not an http or https URL with a host")
	}
	if c.MaxConns < 0 || c.ConnectsPerSecond < 0 {
		bad("limits of connections are negative")
	}
	if c.MaxStreams < 0 || c.MaxStreams > maxMaxStreams {
		bad("max streams %d is not 0 to %d", c.MaxStreams, maxMaxStreams)
	}
	if c.Lifetime > maxLifetime {
		bad("lifetime %s is longer than 30 days", c.Lifetime)
	}
	return errors.Join(errs...)
}

func orDefault[T int | float64 | time.Duration](v, zero T) T {
	if v == 0 {
		return zero
	}
	return v
}

// withDefaults returns c with every zero replaced by what it selects.
func (c Config) withDefaults() Config {
	if c.Addr == "" {
		c.Addr = c.Environment.Addr()
	}
	if c.Engine == "" {
		c.Engine = EngineNative
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Logger = c.Logger.With("app", c.App)
	if c.Random == nil {
		c.Random = rand.Int64N
	}
	c.MaxConns = orDefault(c.MaxConns, defaultMaxConns)
	c.MaxStreams = orDefault(c.MaxStreams, defaultMaxStreams)
	c.ConnectsPerSecond = orDefault(c.ConnectsPerSecond, 2)
	c.IdleTimeout = orDefault(c.IdleTimeout, 10*time.Minute)
	c.Lifetime = orDefault(c.Lifetime, 72*time.Hour)
	c.AnswerTimeout = orDefault(c.AnswerTimeout, 10*time.Second)
	c.PingTimeout = orDefault(c.PingTimeout, 5*time.Second)
	c.DrainTimeout = orDefault(c.DrainTimeout, 10*time.Second)
	c.ConnectTimeout = orDefault(c.ConnectTimeout, 15*time.Second)
	return c
}

// expiration returns the apns-expiration of a push sent now, in seconds since
// 1970, rounded up to the hour so that the header stays the same for an hour
// and costs one byte. 0 asks APNs not to keep the push.
func (c *Config) expiration(now time.Time) int64 {
	if c.Lifetime < 0 {
		return 0
	}
	const hour = int64(time.Hour / time.Second)
	at := now.Add(c.Lifetime).Unix()
	return (at + hour - 1) / hour * hour
}
