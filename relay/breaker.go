package relay

import (
	"context"
	"time"
)

// The breaker's numbers are ours: twenty refusals without one acceptance are no
// accident at any load, and twenty acceptances without a refusal are none
// either; half a minute between trials is soon enough after an outage that
// Apple asks to meet with 15 minutes of patience.
const (
	breakerThreshold  = 20 // failures in a row that open it, acceptances that close it
	firstBreakerPause = time.Second
	lastBreakerPause  = 30 * time.Second
)

// breaker keeps an app from storming an APNs that is unwell or that refuses
// its credential. Open, it lets a single push through now and then; each one
// accepted lets two more go, until the flow is free again.
//
// The dispatcher's mutex guards it.
type breaker struct {
	open      bool
	alarm     bool // it opened because APNs refused the app itself
	failures  int  // in a row, while closed
	allowance int  // pushes that may go, while open
	trial     bool // a push went out since the last pause
	ramp      int  // pushes accepted in a row, while open
	pause     time.Duration
	since     int64 // when it opened, on the relay's clock
}

// grant returns how many of n pushes may go.
func (b *breaker) grant(n int) int {
	if !b.open {
		return n
	}
	n = min(n, b.allowance)
	b.allowance -= n
	b.trial = b.trial || n > 0
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

// note counts answers. It returns true if pause or allowance changed.
func (b *breaker) note(accepted, failed int, alarm bool) bool {
	if !b.open {
		if accepted > 0 {
			b.failures = 0
		}
		b.failures += failed
		if !alarm && b.failures < breakerThreshold {
			return false
		}
		*b = breaker{open: true, alarm: alarm, pause: firstBreakerPause}
		return true
	}
	switch {
	case failed > 0:
		b.ramp, b.allowance = 0, 0
		b.alarm = b.alarm || alarm
		if b.trial {
			b.trial = false
			b.pause = min(2*b.pause, lastBreakerPause)
		}
		return true
	case accepted > 0:
		b.ramp += accepted
		b.allowance += 2 * accepted
		if b.ramp >= breakerThreshold {
			*b = breaker{}
		}
		return true
	}
	return false
}

// runBreaker grants a trial push after each pause while the breaker is open,
// until ctx is done.
func (d *dispatcher) runBreaker(ctx context.Context) {
	timer := time.NewTimer(0)
	timer.Stop()
	defer timer.Stop()
	wasOpen := false
	for {
		select {
		case <-timer.C:
			d.mu.Lock()
			if d.breaker.open {
				d.breaker.allowance = max(d.breaker.allowance, 1)
			}
			d.mu.Unlock()
			d.wakePool()
		case <-d.breakerChanged:
			d.wakePool()
		case <-ctx.Done():
			return
		}
		d.mu.Lock()
		open, alarm, pause := d.breaker.open, d.breaker.alarm, d.breaker.pause
		d.mu.Unlock()
		if open {
			timer.Reset(d.relay.jitter(pause))
		}
		if open != wasOpen {
			d.logBreaker(open, alarm)
			wasOpen = open
		}
	}
}

// logBreaker tells the operator that the breaker opened or closed.
func (d *dispatcher) logBreaker(open, alarm bool) {
	switch {
	case open && alarm:
		d.relay.logger.Error("breaker opened: APNs refuses the app", "app", d.name)
	case open:
		d.relay.logger.Warn("breaker opened: APNs is unwell", "app", d.name)
	default:
		d.relay.logger.Info("breaker closed", "app", d.name)
	}
}
