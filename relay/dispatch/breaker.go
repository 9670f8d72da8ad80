package dispatch

import "time"

// The breaker's numbers are ours: twenty failures without one acceptance are no
// accident at any load, and twenty acceptances without a failure are none
// either; half a minute between trials is soon enough after an outage that
// Apple asks to meet with 15 minutes of patience.
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
	since     int64 // when it opened
	failures  int   // in a row, while closed
	allowance int   // pushes that may go, while open
	tried     bool  // a push went out since the last pause
	accepted  int   // pushes in a row, while open
	trialAt   int64 // when one more push may go, while open
	pause     time.Duration
}

// grant returns how many of n pushes may go.
func (b *breaker) grant(n int) int {
	if !b.open {
		return n
	}
	n = min(n, b.allowance)
	b.allowance -= n
	b.tried = b.tried || n > 0
	return n
}

// refund gives back pushes that were granted and did not go.
func (b *breaker) refund(n int) {
	if b.open {
		b.allowance += n
	}
}

// visible returns how many of the waiting devices the pool may know of.
func (b *breaker) visible(waiting int) int {
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
		*b = breaker{random: b.random, open: true, since: now, pause: firstBreakerPause}
	case failed > 0:
		b.accepted, b.allowance = 0, 0
		if b.tried {
			b.tried = false
			b.pause = min(2*b.pause, lastBreakerPause)
		}
	case accepted > 0:
		b.accepted += accepted
		b.allowance += 2 * accepted
		if b.accepted >= breakerThreshold {
			*b = breaker{random: b.random}
		}
	default:
		return false
	}
	b.trialAt = now + int64(jitter(b.pause, b.random))
	return true
}

// tick lets a push go where a pause is over. It returns whether it did, and when it
// will; 0: not in this state.
func (b *breaker) tick(now int64) (due bool, next int64) {
	if !b.open {
		return false, 0
	}
	if due = now >= b.trialAt; due {
		b.allowance = max(b.allowance, 1)
		b.trialAt = now + int64(jitter(b.pause, b.random))
	}
	return due, b.trialAt
}

// jitter returns between wait and a quarter more, so that what failed together
// does not come back together.
func jitter(wait time.Duration, random func(n int64) int64) time.Duration {
	return wait + time.Duration(random(int64(wait/4+1)))
}
