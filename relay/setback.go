package relay

import (
	"slices"
	"time"

	"badgerelay/apns"
)

// setback is what APNs asked to wait for before a device is pushed to again. A
// nil setback is nothing. The device's mutex guards it.
type setback struct {
	at          int64          // when APNs asked last; a registration since then ends all of it
	pausedUntil int64          // no count may go before; 0: no pause
	pauses      uint8          // in a row, for backoff
	blocked     []blockedCount // counts that APNs answered with 5xx
	reason      apns.Reason    // what APNs said last
}

// blockedCount is a count that must not be sent before a time.
type blockedCount struct {
	count uint32
	until int64
}

// until returns when a count may be sent.
func (s *setback) until(count uint32) int64 {
	if s == nil {
		return 0
	}
	for _, b := range s.blocked {
		if b.count == count {
			return max(b.until, s.pausedUntil)
		}
	}
	return s.pausedUntil
}

// over returns when every count may be sent.
func (s *setback) over() int64 {
	if s == nil {
		return 0
	}
	at := s.pausedUntil
	for _, b := range s.blocked {
		at = max(at, b.until)
	}
	return at
}

// setBack returns the device's setback, which it makes if there is none.
func (d *device) setBack(now int64) *setback {
	if d.setback == nil {
		d.setback = new(setback)
	}
	d.setback.at = now
	return d.setback
}

// maxBlocked is how many counts of one device may wait each for its time. Who
// is refused more often in a quarter of an hour waits with every count.
const maxBlocked = 8

// block keeps a count from the device until a time, whatever else APNs accepts
// meanwhile.
func (d *device) block(count uint32, now, until int64) {
	s := d.setBack(now)
	s.unblock(now, count)
	if len(s.blocked) == maxBlocked {
		s.pausedUntil = max(s.pausedUntil, s.blocked[0].until)
		s.blocked = s.blocked[1:]
	}
	s.blocked = append(s.blocked, blockedCount{count, until})
}

// unblock forgets counts whose time has come, and one more.
func (s *setback) unblock(now int64, count uint32) {
	s.blocked = slices.DeleteFunc(s.blocked, func(b blockedCount) bool { return b.until <= now || b.count == count })
}

// Pauses after APNs asked for one (429 TooManyRequests, whose length Apple does
// not document), or after an answer that is none of APNs': doubling.
const (
	firstPause = time.Second
	lastPause  = 15 * time.Minute
)

// pause keeps every count from the device for a while, and at least as long as
// the answer asked for.
func (d *device) pause(now int64, asked time.Duration, r *Relay) {
	s := d.setBack(now)
	wait := max(min(firstPause<<s.pauses, lastPause), asked)
	if s.pauses < 10 { // 2^10 seconds is beyond lastPause
		s.pauses++
	}
	s.pausedUntil = now + int64(r.jitter(wait))
}

// endSetback notes that APNs accepted a count: only other counts may have to
// wait still.
func (d *device) endSetback(now int64, count uint32) {
	s := d.setback
	if s == nil {
		return
	}
	s.unblock(now, count)
	if s.pausedUntil, s.pauses = 0, 0; len(s.blocked) == 0 {
		d.setback = nil
	}
}
