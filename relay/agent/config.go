package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
)

// MaxBatch is the most events a batch may hold (relay.proto, message Batch).
const MaxBatch = 10_000

// Bounds of how an agent says which it is (relay.proto, message Hello).
const (
	MaxAgentIDBytes  = 128
	MaxInstanceBytes = 64
)

// Config is what an Agent and a Client need. Addresses, Token, AgentID and Name
// are required by an Agent; Addresses and Token by a Client, and AgentID by its
// Publish.
type Config struct {
	// Addresses are the relays, each a "host:port" or a gRPC target. They are
	// tried in this order, from Start on, and again from the first after the
	// last. Give each agent of a fleet another order.
	Addresses []string

	// TLS is how relays are verified. Nil: the system's roots, TLS 1.2 or later.
	TLS *tls.Config
	// Plaintext speaks without TLS, tokens included: for tests and for a
	// sidecar that brings TLS itself. TLS must be nil then.
	Plaintext bool

	// Token makes the tokens.
	Token TokenSource

	// AgentID is which agent this is: 1 to MaxAgentIDBytes visible ASCII
	// characters. It stays the same over restarts and moves, and another agent has
	// another one. Of several processes with one id the newest is active, and the
	// others stand by.
	AgentID string
	// Instance is which process of the agent this is: 1 to MaxInstanceBytes visible
	// ASCII characters, greater than that of each process that was started before.
	// Empty: New makes one of the time and chance.
	Instance string

	// Name, Product and ProductVersion are what the agent says about itself
	// (relay.proto, message Agent): 1 to 128 bytes, and at most 64 bytes each.
	// A Client may leave the name empty.
	Name           string
	Product        string
	ProductVersion string

	// BatchEvents is the most events sent in one message, 1 to MaxBatch. The
	// relay may ask for fewer. 0: 1000.
	BatchEvents int
	// FlushDelay is how long the first count of a batch waits for others to
	// go with it. 0: 10 ms. Negative: it does not wait.
	FlushDelay time.Duration
	// SettlementDelay is how long the relay may hold back that a count was delivered,
	// which saves most of the messages of an agent that sends counts all the time
	// (relay.proto, message SettlementDelay). It begins ten seconds after a stream, and
	// is as long as the relay takes at most. 0: the relay's own delay of 0.2 s.
	SettlementDelay time.Duration
	// MaxUnsettled is the most mailboxes held unsettled; Set refuses others
	// with ErrFull then. 0: 4,000,000.
	MaxUnsettled int

	// BackoffMin and BackoffMax bound the wait between two rounds of attempts
	// to reach a relay; it doubles from one round to the next and is jittered.
	// 0: 500 ms and 30 s.
	BackoffMin, BackoffMax time.Duration
	// RefusedDelay is the wait after a refusal that waiting does not mend: a
	// disabled organization, a product too old. 0: 1 minute.
	RefusedDelay time.Duration
	// OpenTimeout bounds one attempt to connect and be welcomed. 0: 20 s.
	OpenTimeout time.Duration

	// Random returns a number from 0 to n-1, for the jitter of waits; n is
	// positive. It is called from many goroutines. Nil: math/rand/v2.
	Random func(n int64) int64

	// OnOutcome is told of every count that a relay has settled, unless a
	// newer one took its place here before. It is called from one goroutine
	// for each open stream (two, for a moment, while a relay drains) and
	// delays that stream's settlements until it returns. Nil: nobody is told.
	OnOutcome func(Result)
	// OnFailure is told why a stream could not be opened or ended, before the
	// agent waits to try again. It is called from Run's goroutine. Nil: nobody.
	OnFailure func(Failure)

	// OnTakeover is told that this process is active after it stood by for another
	// one with the agent's id. What is held may be older than what that one has
	// sent: count every mailbox anew. It is called from the goroutine that OnOutcome
	// is called from. Nil: nobody is told.
	OnTakeover func()

	// Logger gets what people should know. Nil: nothing is logged.
	Logger *slog.Logger
	// Metrics registers the agent's metrics. Nil: none.
	Metrics prometheus.Registerer
	// TracerProvider makes a span of each batch, whose trace the relay goes on
	// with. Nil: nothing is traced.
	TracerProvider trace.TracerProvider
	// DialOptions are added to each connection's own: tracing, a proxy.
	DialOptions []grpc.DialOption
}

// Validate returns everything that is wrong with c, as one error.
func (c *Config) Validate() error {
	var errs []error
	if c.Name == "" {
		errs = append(errs, errors.New("no agent name"))
	}
	if c.AgentID == "" {
		errs = append(errs, errors.New("no agent id"))
	}
	return errors.Join(append(errs, c.validateClient())...)
}

func (c *Config) validateClient() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Addresses) == 0 {
		fail("no relay address")
	}
	for _, address := range c.Addresses {
		if address == "" {
			fail("empty relay address")
		}
	}
	if c.Token == nil {
		fail("no token source")
	}
	if c.Plaintext && c.TLS != nil {
		fail("both TLS and plaintext")
	}
	for _, field := range []struct {
		name, value string
		max         int
	}{{"name", c.Name, 128}, {"product", c.Product, 64}, {"product version", c.ProductVersion, 64}} {
		if len(field.value) > field.max {
			fail("%s of %d bytes, at most %d are allowed", field.name, len(field.value), field.max)
		}
	}
	for _, id := range []struct {
		name, value string
		max         int
	}{{"agent id", c.AgentID, MaxAgentIDBytes}, {"instance", c.Instance, MaxInstanceBytes}} {
		if len(id.value) > id.max {
			fail("%s of %d bytes, at most %d are allowed", id.name, len(id.value), id.max)
		}
		if !visibleASCII(id.value) {
			fail("%s %q has a character that is not visible ASCII", id.name, id.value)
		}
	}
	if c.BatchEvents < 0 || c.BatchEvents > MaxBatch {
		fail("batch of %d events, want 1 to %d", c.BatchEvents, MaxBatch)
	}
	if c.SettlementDelay < 0 || c.MaxUnsettled < 0 || c.BackoffMin < 0 || c.RefusedDelay < 0 || c.OpenTimeout < 0 {
		fail("negative limit or delay")
	}
	if c.backoffMax() < c.backoffMin() {
		fail("backoff of at most %v is below its least, %v", c.backoffMax(), c.backoffMin())
	}
	return errors.Join(errs...)
}

// visibleASCII reports whether s has no other characters.
func visibleASCII(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func (c *Config) batchEvents() int          { return or(c.BatchEvents, 1000) }
func (c *Config) maxUnsettled() int         { return or(c.MaxUnsettled, 4_000_000) }
func (c *Config) backoffMin() time.Duration { return or(c.BackoffMin, 500*time.Millisecond) }
func (c *Config) backoffMax() time.Duration {
	return or(c.BackoffMax, max(30*time.Second, c.backoffMin()))
}
func (c *Config) refusedDelay() time.Duration { return or(c.RefusedDelay, time.Minute) }
func (c *Config) openTimeout() time.Duration  { return or(c.OpenTimeout, 20*time.Second) }

func (c *Config) flushDelay() time.Duration { return max(0, or(c.FlushDelay, 10*time.Millisecond)) }

func (c *Config) random() func(int64) int64 {
	if c.Random == nil {
		return rand.Int64N
	}
	return c.Random
}

func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// TokenSource makes S2S tokens. It is safe for concurrent use.
type TokenSource interface {
	// Token returns a token and when it runs out. unlike is empty, or a token
	// that will not do any longer because the relay refused it or because it
	// is about to run out: a source that remembers its last token must not
	// return that one if it can make another.
	Token(ctx context.Context, unlike string) (token string, expires time.Time, err error)
}

// TokenFunc is a function as a TokenSource.
type TokenFunc func(ctx context.Context, unlike string) (string, time.Time, error)

// Token calls f.
func (f TokenFunc) Token(ctx context.Context, unlike string) (string, time.Time, error) {
	return f(ctx, unlike)
}
