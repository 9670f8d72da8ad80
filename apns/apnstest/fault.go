package apnstest

import (
	"errors"
	"fmt"
	"time"
)

// Fault is one way to misbehave. Its String is its name in logs, statistics
// and the management port.
type Fault uint8

// Faults of one request.
const (
	NoFault            Fault = iota
	FaultLate                // the answer comes after Faults.Late
	FaultStallStream         // no answer ever comes; the push was processed
	FaultRefuseStream        // RST_STREAM(REFUSED_STREAM), not processed
	FaultResetStream         // RST_STREAM(INTERNAL_ERROR) after half of the answer, processed
	FaultSplitAnswer         // the answer comes in CONTINUATION frames, padded DATA frames, or both
	FaultUnknownFrames       // frames of unknown type, with unknown flags, go before the answer
	FaultInformational       // a 103 answer goes before the final one
	FaultAnswerReset         // the answer comes after RST_STREAM(CANCEL) on the same stream
	FaultHugeHeaders         // 64 KiB of header fields in the answer
	FaultMissingID           // no apns-id in the answer
	FaultDuplicateGone       // 410, and again on the closed stream; the device is registered, the timestamp is older
	FaultOldTimestamp        // 410 with a timestamp older than the registration
	FaultServerError         // 500 InternalServerError, Faults.Burst times
	FaultUnavailable         // 503 ServiceUnavailable, Faults.Burst times
	FaultShuttingDown        // 503 Shutdown, Faults.Burst times
	FaultTooMany             // 429 TooManyRequests, Faults.Burst times
	FaultTokenExpired        // 403 ExpiredProviderToken, then for good as in rule T3

	// Faults of a whole connection. One that is injected strikes with a request.

	FaultWedge           // 500 InternalServerError to everything from now on
	FaultStallSocket     // nothing is read or written any more; the connection stays open
	FaultReset           // TCP RST
	FaultHalfClose       // FIN; what the client still sends is read and ignored
	FaultGoAway          // GOAWAY(0, last, {"reason":"Shutdown"}); streams up to last are answered
	FaultGoAwayEarly     // GOAWAY with a last id below what is in flight; the rest is not processed
	FaultGoAwayTwice     // GOAWAY(0, 2^31-1), then GOAWAY with the true last id
	FaultGoAwayText      // GOAWAY(7) with plain text
	FaultGoAwayTruncated // GOAWAY(2) with half a JSON object
	FaultLimitOne        // the stream limit drops to 1 for Faults.Hold
	FaultLimitZero       // the stream limit drops to 0 for Faults.Hold
	FaultStarveWindow    // no WINDOW_UPDATE for Faults.Hold
	FaultIgnorePing      // PING is not answered any more
	FaultPingFlood       // 1000 PINGs at once

	// Faults of a new connection.

	FaultRefuseConnect      // closed before the TLS handshake
	FaultSlowTLS            // the TLS handshake starts after Faults.Hold
	FaultLateSettings       // the first SETTINGS comes after Faults.Hold
	FaultExpiredCertificate // the server's certificate has expired
	FaultWrongName          // the server's certificate is for another name

	faultCount
)

var faultNames = [faultCount]string{
	"none", "late", "stall_stream", "refuse_stream", "reset_stream", "split_answer", "unknown_frames", "informational",
	"answer_reset", "huge_headers", "missing_id", "duplicate_gone", "old_timestamp", "server_error", "unavailable",
	"shutting_down", "too_many", "token_expired", "wedge", "stall_socket", "reset", "half_close", "goaway", "goaway_early",
	"goaway_twice", "goaway_text", "goaway_truncated", "limit_one", "limit_zero", "starve_window", "ignore_ping",
	"ping_flood", "refuse_connect", "slow_tls", "late_settings", "expired_certificate", "wrong_name",
}

// String returns the name of f, such as "goaway_early".
func (f Fault) String() string {
	if f >= faultCount {
		return fmt.Sprintf("fault(%d)", uint8(f))
	}
	return faultNames[f]
}

// MarshalText implements encoding.TextMarshaler with the name.
func (f Fault) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. An unknown name is an
// error that repeats it.
func (f *Fault) UnmarshalText(text []byte) error {
	got, err := ParseFault(string(text))
	*f = got
	return err
}

// ParseFault returns the fault of that name. An unknown name is an error that
// repeats it.
func ParseFault(name string) (Fault, error) {
	for i, n := range faultNames {
		if n == name {
			return Fault(i), nil
		}
	}
	return NoFault, fmt.Errorf("unknown fault %q", name)
}

// AllFaults returns every fault, requests' first, then connections', then new
// connections'.
func AllFaults() []Fault {
	all := make([]Fault, 0, faultCount-1)
	for f := NoFault + 1; f < faultCount; f++ {
		all = append(all, f)
	}
	return all
}

// OfConnection reports whether f strikes a whole open connection.
func (f Fault) OfConnection() bool { return f >= FaultWedge && f < FaultRefuseConnect }

// OfConnect reports whether f strikes a connection while it is opened.
func (f Fault) OfConnect() bool { return f >= FaultRefuseConnect && f < faultCount }

// OfRequest reports whether f strikes a single request.
func (f Fault) OfRequest() bool { return f > NoFault && f < FaultWedge }

// Latency is how long the answer to a request takes. The zero value answers
// at once.
type Latency struct {
	Min    time.Duration `json:"min"`    // every answer takes at least this
	Jitter time.Duration `json:"jitter"` // and up to this more, evenly spread
	// TailRate is the share of answers, 0..1, that take up to Tail more,
	// exponentially spread with a mean of a third of Tail.
	TailRate float64       `json:"tailRate"`
	Tail     time.Duration `json:"tail"`
}

// Faults says what to inject and how often. The zero value injects nothing and
// answers at once.
type Faults struct {
	Latency Latency `json:"latency"`
	// Rates are the shares, 0..1, of requests (for faults of requests and of
	// connections) or of connects that a fault strikes. Together at most 1 for
	// requests, and at most 1 for connects.
	Rates map[Fault]float64 `json:"rates,omitempty"`
	// Late is how late a FaultLate is. Zero: 3 s.
	Late time.Duration `json:"late,omitempty"`
	// Hold is how long passing faults last. Zero: 2 s.
	Hold time.Duration `json:"hold,omitempty"`
	// Burst is the number of requests of one connection that a burst strikes. Zero: 5.
	Burst int `json:"burst,omitempty"`
}

// LowRate returns the faults that a simulator for people should run with:
// each strikes about once in some thousand requests, none loses a badge that a
// correct client would not send again.
func LowRate() Faults {
	return Faults{
		Latency: Latency{Min: 20 * time.Millisecond, Jitter: 40 * time.Millisecond, TailRate: 0.01, Tail: time.Second},
		Rates: map[Fault]float64{
			FaultLate: 2e-4, FaultRefuseStream: 5e-4, FaultResetStream: 2e-4, FaultSplitAnswer: 2e-3,
			FaultUnknownFrames: 2e-3, FaultInformational: 1e-3, FaultMissingID: 1e-3, FaultServerError: 1e-4,
			FaultUnavailable: 1e-4, FaultTooMany: 2e-4, FaultOldTimestamp: 1e-4, FaultReset: 5e-5, FaultGoAway: 2e-4,
			FaultGoAwayEarly: 1e-4, FaultGoAwayTwice: 5e-5, FaultGoAwayText: 5e-5, FaultGoAwayTruncated: 5e-5,
			FaultLimitOne: 1e-4, FaultLimitZero: 5e-5, FaultStallStream: 5e-5, FaultHalfClose: 2e-5,
			FaultSlowTLS: 0.02, FaultLateSettings: 0.02, FaultRefuseConnect: 0.01,
		},
	}
}

// Validate returns every problem of f at once.
func (f *Faults) Validate() error {
	var errs []error
	var requests, connects float64
	for k, r := range f.Rates {
		if k == NoFault || k >= faultCount {
			errs = append(errs, fmt.Errorf("unknown fault %d", uint8(k)))
			continue
		}
		if !(r >= 0 && r <= 1) {
			errs = append(errs, fmt.Errorf("rate of %s is %v, not within 0..1", k, r))
		}
		if k.OfConnect() {
			connects += r
		} else {
			requests += r
		}
	}
	if requests > 1 || connects > 1 {
		errs = append(errs, fmt.Errorf("rates add up to %v of requests and %v of connects, more than 1", requests, connects))
	}
	l := f.Latency
	if l.Min < 0 || l.Jitter < 0 || l.Tail < 0 || f.Late < 0 || f.Hold < 0 || f.Burst < 0 {
		errs = append(errs, errors.New("latency, late, hold and burst can't be negative"))
	}
	if !(l.TailRate >= 0 && l.TailRate <= 1) {
		errs = append(errs, fmt.Errorf("tail rate %v is not within 0..1", l.TailRate))
	}
	return errors.Join(errs...)
}

func (f *Faults) late() time.Duration { return or(f.Late, 3*time.Second) }
func (f *Faults) hold() time.Duration { return or(f.Hold, 2*time.Second) }
func (f *Faults) burst() int          { return or(f.Burst, 5) }
