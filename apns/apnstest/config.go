package apnstest

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Environment is one of APNs' two separate worlds.
type Environment uint8

// The environments. The zero value is Production.
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

// TeamKey is a key whose provider tokens the simulator accepts.
type TeamKey struct {
	TeamID string // the token's iss, 10 characters
	KeyID  string // the token's kid, 10 characters
	Key    *ecdsa.PublicKey

	// Topics are those the key may push to. Empty: those of the Config.
	Topics []string
	// OnlyIn is set for a key that serves one environment only.
	OnlyIn *Environment
}

// Config says what a Simulator accepts. The zero value is a production server
// that knows no key and no device, and injects no faults.
// None of it can be reloaded; what can change has a method on Simulator.
type Config struct {
	Environment Environment

	// TeamKeys verify provider tokens; AddTeamKey adds more.
	TeamKeys []TeamKey
	// Topics are the bundle ids that may be pushed to. Empty: any. AddTopic adds more.
	Topics []string
	// Strict refuses the forms that APNs takes beside those that standards and
	// Apple's pages prescribe: a TLS client without ALPN (pushiko,
	// docs/comparisons.md), a token signature in DER (APNSwift#36), a token in
	// padded or standard base64 or with a member twice, an iat that is no whole
	// number of seconds, an apns-id in upper case, and more than one stream
	// before the first SETTINGS are acknowledged (rule C3). All read 2026-11.
	Strict bool
	// TokenSkew is how far in the future a token's iat may lie. Zero: 1 min; negative: none.
	TokenSkew time.Duration
	// TokenScopeTeam counts changes of the provider token for the whole team
	// instead of per connection. Apple's own statements differ (rule T5).
	TokenScopeTeam bool
	// TokenThrottleWedges refuses every request of a connection that changed
	// its token too often until the 20 minutes are over, the old token too.
	TokenThrottleWedges bool
	// ExpiredRecovers serves a connection again once it shows a fresh token.
	// Otherwise it stays refused, as observed (pushy#783, read 2026-11).
	ExpiredRecovers bool

	// ClientCAs verify client certificates, which then replace provider
	// tokens. Nil: no client certificate is asked for.
	ClientCAs *x509.CertPool

	// Certificate is the server's. Nil: one of an Authority made by New.
	Certificate *tls.Certificate
	// Authority signs the server's certificates. Nil: a new one. Making one
	// costs a millisecond: share it between simulators.
	Authority *Authority
	// Hosts are further names and addresses in the server's certificate.
	// Always in it: localhost, 127.0.0.1, ::1 and Apple's names.
	Hosts []string

	// StreamLimit is the number of concurrent streams granted to a trusted
	// connection. Zero: 1000.
	StreamLimit uint32
	// ResetOverLimit answers a stream over the limit with RST_STREAM(REFUSED_STREAM)
	// instead of GOAWAY. Both were observed (rule C3).
	ResetOverLimit bool
	// ErrorSlowdown and ErrorDisconnect are the scores of refused requests at
	// which a connection's limit drops to 1, and at which it is closed (rule
	// C5). BadDeviceToken counts 4, other refusals 1, a success takes 1 away.
	// Zero: 200 and 800; negative: never.
	ErrorSlowdown, ErrorDisconnect int
	// IdleTimeout closes connections without requests. Zero: never.
	IdleTimeout time.Duration
	// ConnectsPerMinute is what one source address may do before it is refused
	// for the rest of the minute (rule C8). Zero: 120; negative: any number.
	ConnectsPerMinute int

	// BySource takes each source address for a client of its own, which can't know
	// what another sent or was told: two pushes in flight, payloads refused with a
	// 5xx and dead devices are then counted for each.
	BySource bool

	// AcceptUnknownDevices takes any well-formed device token instead of
	// answering BadDeviceToken, and registers it unless Fast.
	AcceptUnknownDevices bool
	// UnregisterDelay is how long at most a device that unregistered is still
	// answered 200; the delay is drawn at random. Zero: none.
	UnregisterDelay time.Duration
	// MaxDeviceInFlight and MaxDevicePerSecond are the numbers of pushes to
	// one device that are answered 429 TooManyRequests when reached and when
	// exceeded, respectively (rule R16). Zero: 3 and 10; negative: never.
	MaxDeviceInFlight, MaxDevicePerSecond int
	// PowerDelay is how long at most a push of priority 5 or 1 waits before the
	// device shows it; drawn at random. Zero: not at all.
	PowerDelay time.Duration
	// ReorderRate is the share of pushes that a device shows only after the
	// next one, within a second. Zero: none.
	ReorderRate float64

	// RoundTrip is how far away the simulator pretends to be: the handshake
	// waits for so long, and everything it says after it arrives so much later.
	// Zero: it is near.
	RoundTrip time.Duration

	// ServerErrorWait is how long a payload refused with a 5xx may not come
	// again. Zero: 15 min, as Apple asks (rule of ClientEarly5xx). Shorter, with a
	// client that waits as long, where a test can't wait.
	ServerErrorWait time.Duration

	// Fast leaves out the history, the accounting of header compression, the
	// per-device counts and rates, and registers no unknown device.
	Fast bool
	// HistorySize is the number of requests remembered. Zero: 10000; negative: none.
	HistorySize int

	// Faults are injected from the start; SetFaults changes them.
	Faults Faults
	// Seed makes the faults repeatable, connection by connection. Zero: drawn
	// at random; Simulator.Seed says which.
	Seed uint64

	// Logger gets refusals at debug level and injected faults at info level.
	// Nil: none.
	Logger *slog.Logger
}

// Validate returns every problem of c at once.
func (c *Config) Validate() error {
	var errs []error
	for i, k := range c.TeamKeys {
		if k.TeamID == "" || k.KeyID == "" || k.Key == nil {
			errs = append(errs, fmt.Errorf("team key %d: team id, key id and key are needed", i))
		}
	}
	if c.StreamLimit > 1<<31-1 {
		errs = append(errs, fmt.Errorf("stream limit %d exceeds %d", c.StreamLimit, 1<<31-1))
	}
	if c.RoundTrip < 0 || c.RoundTrip > time.Minute {
		errs = append(errs, fmt.Errorf("round trip %v is not within 0..1m", c.RoundTrip))
	}
	if c.ReorderRate < 0 || c.ReorderRate > 1 {
		errs = append(errs, fmt.Errorf("reorder rate %v is not within 0..1", c.ReorderRate))
	}
	return errors.Join(append(errs, c.Faults.Validate())...)
}

// or returns the default for zero, and 0 for a negative value, which switches off.
func or[T int | time.Duration](v, def T) T {
	switch {
	case v == 0:
		return def
	case v < 0:
		return 0
	}
	return v
}

func (c *Config) streamLimit() uint32 {
	if c.StreamLimit == 0 {
		return 1000 // what APNs grants: pushy#878, pushiko (read 2026-11)
	}
	return c.StreamLimit
}

func (c *Config) tokenSkew() time.Duration { return or(c.TokenSkew, time.Minute) }
func (c *Config) errorSlowdown() int       { return or(c.ErrorSlowdown, 200) }
func (c *Config) errorDisconnect() int     { return or(c.ErrorDisconnect, 800) }
func (c *Config) connectsPerMinute() int   { return or(c.ConnectsPerMinute, 120) }
func (c *Config) maxDeviceInFlight() int   { return or(c.MaxDeviceInFlight, 3) }
func (c *Config) maxDevicePerSecond() int  { return or(c.MaxDevicePerSecond, 10) }
func (c *Config) historySize() int         { return or(c.HistorySize, 10000) }

func (c *Config) serverErrorWait() time.Duration { return or(c.ServerErrorWait, 15*time.Minute) }

func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}
