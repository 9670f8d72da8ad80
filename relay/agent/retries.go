package agent

import (
	"time"

	"badgerelay/relay/agent/internal/backoff"
)

// retries decides how long to wait before the next attempt. One goroutine owns it.
type retries struct {
	min, max, refused time.Duration
	addresses         int
	random            func(n int64) int64

	failures int // in a row, of any kind
	kind     FailureKind
	repeats  int // of kind, in a row
}

func newRetries(c *Config) *retries {
	return &retries{min: c.backoffMin(), max: c.backoffMax(), refused: c.refusedDelay(), addresses: len(c.Addresses), random: c.random()}
}

// succeeded starts over: a stream has carried a settlement, or held.
func (r *retries) succeeded() { r.failures, r.repeats = 0, 0 }

// next counts a failure and fills in how long to wait after it.
//
// Within a round each address gets one quick attempt, so that one relay that
// is down costs no badge any time; between rounds the wait doubles. Waits
// are jittered over their lower half, so that a fleet which lost the same relay
// does not come back in step.
func (r *retries) next(f *Failure) {
	if f.Kind != r.kind {
		r.kind, r.repeats = f.Kind, 0
	}
	f.Repeats = r.repeats
	r.repeats++
	round := r.failures / r.addresses
	last := r.failures%r.addresses == r.addresses-1
	r.failures++
	switch {
	case f.Kind == FailureRefused || f.Kind == FailureProtocol:
		f.Again = r.jitter(max(r.refused, f.After))
	case f.Kind == FailureBusy:
		// What the relay asks for is the least.
		f.Again = max(f.After, backoff.Doubled(round, r.min, r.max)) + r.jitter(r.min)
	case f.Kind == FailureToken && f.Repeats == 0 && f.Code != 0:
		f.Again = 0 // with a fresh token, at once
	case f.Kind == FailureDraining && !last:
		f.Again = 0
	case !last:
		f.Again = r.jitter(r.min / 4)
	default:
		f.Again = max(f.After, r.jitter(backoff.Doubled(round, r.min, r.max)))
	}
}

// jitter is backoff.Jittered with the chance of Config.Random.
func (r *retries) jitter(d time.Duration) time.Duration {
	if d <= 1 {
		return d
	}
	return d/2 + time.Duration(r.random(int64(d-d/2)))
}
