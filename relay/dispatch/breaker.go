package dispatch

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

// The breaker's numbers are ours: twenty failures without one acceptance are no
// accident at any load, and twenty acceptances without a failure are none
// either; half a minute between probes is soon enough after an outage, after
// which Apple asks to wait 15 minutes.
const (
	breakerThreshold  = 20 // failures in a row that open it, acceptances that close it
	firstBreakerPause = time.Second
	lastBreakerPause  = 30 * time.Second
)

// breaker keeps an app from storming an APNs that answers errors. Open, it lets a
// single push through now and then; each one accepted lets two more go, until
// the flow is free again.
//
// The Queue's mutex guards it.
type breaker struct {
	random    func(n int64) int64
	open      bool
	since     int64  // when it opened
	failures  int    // in a row, while closed
	allowance int    // pushes that may go, while open
	grant     uint64 // grows when what was acquired before is not to be given back any more
	probed    bool   // a push went out since the last pause
	accepted  int    // pushes in a row, while open
	probeAt   int64  // when one more push may go, while open
	pause     time.Duration
	pauses    backoff.ExponentialBackOff // what pause is next
}

// acquire returns how many of n pushes may go, and under which grant.
func (b *breaker) acquire(n int) (may int, grant uint64) {
	if !b.open {
		return n, b.grant
	}
	n = min(n, b.allowance)
	b.allowance -= n
	b.probed = b.probed || n > 0
	return n, b.grant
}

// release gives back pushes that were acquired and did not go, unless answers have changed
// meanwhile what may go.
func (b *breaker) release(n int, grant uint64) {
	if b.open && grant == b.grant {
		b.allowance += n
	}
}

// advertised returns how many of the waiting devices the pool may know of.
func (b *breaker) advertised(waiting int) int {
	if !b.open {
		return waiting
	}
	return min(waiting, b.allowance)
}

// note counts answers. It returns true if what may go has changed.
func (b *breaker) note(accepted, failed int, now int64) bool {
	switch {
	case !b.open:
		if accepted > 0 {
			b.failures = 0
		}
		if b.failures += failed; b.failures < breakerThreshold {
			return false
		}
		*b = breaker{random: b.random, open: true, since: now, grant: b.grant + 1, pauses: doubling(firstBreakerPause, lastBreakerPause)}
		b.pause = b.pauses.NextBackOff()
	case failed > 0:
		b.accepted, b.allowance = 0, 0
		b.grant++
		if b.probed {
			b.probed = false
			b.pause = b.pauses.NextBackOff()
		}
	case accepted > 0:
		b.accepted += accepted
		b.allowance += 2 * accepted
		if b.accepted >= breakerThreshold {
			*b = breaker{random: b.random, grant: b.grant + 1}
		}
	default:
		return false
	}
	b.probeAt = now + int64(jitter(b.pause, b.random))
	return true
}

// tick lets a push go where a pause is over. It returns whether it did, and when it
// will; 0: not in this state.
func (b *breaker) tick(now int64) (due bool, next int64) {
	if !b.open {
		return false, 0
	}
	if due = now >= b.probeAt; due {
		b.allowance = max(b.allowance, 1)
		b.probeAt = now + int64(jitter(b.pause, b.random))
	}
	return due, b.probeAt
}

// doubling returns pauses from first to last, to be jittered: chance comes from
// Config.Random, so that a simulation can be repeated.
func doubling(first, last time.Duration) backoff.ExponentialBackOff {
	return backoff.ExponentialBackOff{InitialInterval: first, Multiplier: 2, MaxInterval: last}
}

// jitter returns between wait and a quarter more, so that what failed together
// does not come back together.
func jitter(wait time.Duration, random func(n int64) int64) time.Duration {
	return wait + time.Duration(random(int64(wait/4+1)))
}
