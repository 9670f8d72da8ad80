package dispatch

import (
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"badgerelay/apns"
)

// Setback is what APNs asked to wait for before a device is pushed to again: with
// one count, or with any; and what it said last, until it accepts one. A nil Setback is
// nothing. It is not safe for concurrent use.
type Setback struct {
	at          int64                      // when APNs refused a count last
	reason      apns.Reason                // what it said then
	pausedUntil int64                      // no count may go before; 0: no pause
	pauses      backoff.ExponentialBackOff // how long the next one is
	blocked     []blockedCount             // counts that APNs answered with 5xx
}

// blockedCount is a count that must not be sent before a time.
type blockedCount struct {
	count  uint32
	reason apns.Reason
	until  int64
}

// At returns when APNs refused a count last, and with which reason. A registration since then
// ends the setback.
func (s *Setback) At() (at int64, reason apns.Reason) { return s.at, s.reason }

// Paused reports whether no count may be sent at present.
func (s *Setback) Paused(now int64) bool { return s != nil && s.pausedUntil > now }

// Until returns when a count may be sent.
func (s *Setback) Until(count uint32) int64 {
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

// Over returns when every count may be sent.
func (s *Setback) Over() int64 {
	if s == nil {
		return 0
	}
	at := s.pausedUntil
	for _, b := range s.blocked {
		at = max(at, b.until)
	}
	return at
}

// maxBlocked is how many counts of one device may wait each for its time. With one more
// server error in 15 minutes every count of the device waits.
const maxBlocked = 8

// Block keeps a count from the device for about as long as wait, whatever else APNs
// accepts meanwhile. It returns s, or a new Setback where that is nil.
func (s *Setback) Block(count uint32, reason apns.Reason, now int64, wait time.Duration, random func(n int64) int64) *Setback {
	s = s.asked(reason, now)
	s.unblock(now, count)
	if len(s.blocked) == maxBlocked {
		s.pausedUntil = max(s.pausedUntil, s.blocked[0].until)
		s.blocked = s.blocked[1:]
	}
	s.blocked = append(s.blocked, blockedCount{count, reason, now + int64(jitter(wait, random))})
	return s
}

// Pauses after APNs asked for one (429 TooManyRequests, whose length Apple does
// not document), or after an answer that is none of APNs': doubling.
const (
	firstPause = time.Second
	lastPause  = 15 * time.Minute
)

// Pause keeps every count from the device for a while, and at least as long as
// APNs asked for. It returns s, or a new Setback where that is nil.
func (s *Setback) Pause(reason apns.Reason, now int64, asked time.Duration, random func(n int64) int64) *Setback {
	s = s.asked(reason, now)
	s.pausedUntil = now + int64(jitter(max(s.pauses.NextBackOff(), asked), random))
	return s
}

// Drop notes a refusal after which no count has to wait, for those who ask what was said.
// It returns s, or a new Setback where that is nil.
func (s *Setback) Drop(reason apns.Reason, now int64) *Setback { return s.asked(reason, now) }

// Accepted notes that APNs accepted a count: only other counts may have to wait
// still. It returns what is left; nil: nothing.
func (s *Setback) Accepted(now int64, count uint32) *Setback {
	if s == nil {
		return nil
	}
	s.unblock(now, count)
	if len(s.blocked) == 0 {
		return nil
	}
	s.pausedUntil = 0
	s.pauses.Reset()
	s.reason = s.blocked[len(s.blocked)-1].reason
	return s
}

func (s *Setback) asked(reason apns.Reason, now int64) *Setback {
	if s == nil {
		s = &Setback{pauses: doubling(firstPause, lastPause)}
	}
	s.at, s.reason = now, reason
	return s
}

// unblock forgets counts whose time has come, and one more.
func (s *Setback) unblock(now int64, count uint32) {
	s.blocked = slices.DeleteFunc(s.blocked, func(b blockedCount) bool { return b.until <= now || b.count == count })
}
