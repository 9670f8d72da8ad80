package agent

import "time"

// backoff decides how long to wait before the next attempt. One goroutine owns it.
type backoff struct {
	min, max, refused time.Duration
	addresses         int
	random            func(n int64) int64

	failures int // in a row, of any kind
	kind     FailureKind
	repeats  int // of kind, in a row
}

func newBackoff(c *Config) *backoff {
	return &backoff{min: c.backoffMin(), max: c.backoffMax(), refused: c.refusedDelay(), addresses: len(c.Addresses), random: c.random()}
}

// succeeded starts over: a stream has carried a settlement, or held.
func (b *backoff) succeeded() { b.failures, b.repeats = 0, 0 }

// next counts a failure and fills in how long to wait after it.
//
// Within a round each address gets one quick attempt, so that one relay that
// is down costs no badge any time; between rounds the wait doubles. Waits
// are jittered over their lower half, so that a fleet which lost the same relay
// does not come back in step.
func (b *backoff) next(f *Failure) {
	if f.Kind != b.kind {
		b.kind, b.repeats = f.Kind, 0
	}
	f.Repeats = b.repeats
	b.repeats++
	round := b.failures / b.addresses
	last := b.failures%b.addresses == b.addresses-1
	b.failures++
	switch {
	case f.Kind == FailureRefused || f.Kind == FailureProtocol:
		f.Again = b.jitter(max(b.refused, f.After))
	case f.Kind == FailureBusy:
		// What the relay asks for is the least.
		f.Again = max(f.After, b.grown(round)) + b.jitter(b.min)
	case f.Kind == FailureToken && f.Repeats == 0 && f.Code != 0:
		f.Again = 0 // with a fresh token, at once
	case f.Kind == FailureDraining && !last:
		f.Again = 0
	case !last:
		f.Again = b.jitter(b.min / 4)
	default:
		f.Again = max(f.After, b.jitter(b.grown(round)))
	}
}

// grown returns the wait after a round, doubled from min up to max.
func (b *backoff) grown(round int) time.Duration {
	d := b.min
	for ; round > 0 && d < b.max; round-- {
		d *= 2
	}
	return min(d, b.max)
}

// jitter returns between half of d and d.
func (b *backoff) jitter(d time.Duration) time.Duration {
	if d <= 1 {
		return d
	}
	return d/2 + time.Duration(b.random(int64(d-d/2)))
}
