package registry

import (
	"sync"
	"time"
)

const (
	// clockTrusted is for how long nobody must have set the system's clock, that
	// what it says is the time: longer than a wrong one goes unnoticed, because
	// agents are refused meanwhile.
	clockTrusted = 24 * time.Hour
	// clockStep is how far the clock must have moved against the time that passed
	// to have been set, not slewed: slewing, 500 parts in a million at most
	// (adjtimex(2)), makes 43 seconds in clockTrusted.
	clockStep = time.Minute
)

// clock tells the times that rows are stamped with and judged by. The system's
// clock may be set while a relay runs, to the right time or from it, and nobody
// says which; so of the two times that it may be, each use takes the one that
// ends no subscription too early. After a day in which nobody set it, there is
// but one. It is safe for concurrent use.
type clock struct {
	mu    sync.Mutex    // guards what follows
	began time.Time     // with the reading of the monotonic clock
	wall  time.Time     // what the system's clock said then
	moved time.Duration // how far it has been set since then
	since time.Time     // when that was found
}

func newClock() *clock {
	now := time.Now()
	return &clock{began: now, wall: now.Round(0), since: now}
}

// stamp is the time of a registration: the later one. A registration that looks
// older than it is would end by an answer of APNs about the time before it; of
// one that looks younger, a dead device is pushed to now and then until APNs
// names a later time.
func (c *clock) stamp() time.Time {
	set, passed := c.times(time.Now())
	return fromMillis(max(set.UnixMilli(), passed.UnixMilli()))
}

// due is the time by which lifetimes have passed: the earlier one.
func (c *clock) due() time.Time {
	set, passed := c.times(time.Now())
	return fromMillis(min(set.UnixMilli(), passed.UnixMilli()))
}

// times returns what the system's clock says, and what it would say if nobody
// had set it of late. A relay's purge asks once an hour at least.
func (c *clock) times(now time.Time) (set, passed time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	passed = c.wall.Add(now.Sub(c.began))
	moved := now.Round(0).Sub(passed)
	switch {
	case (moved - c.moved).Abs() >= clockStep:
		c.moved, c.since = moved, now
	case now.Sub(c.since) >= clockTrusted:
		c.began, c.wall, c.moved, c.since = now, now.Round(0), 0, now
		passed = c.wall
	}
	return now, passed
}
