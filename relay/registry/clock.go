package registry

import "time"

// clock tells the times that rows are stamped with and judged by. The system's
// clock may be set while a relay runs, to the right time or from it, and nobody
// says which; so of the two times that it may be, each use takes the one that
// ends no subscription too early.
type clock struct {
	began time.Time // with the reading of the monotonic clock
	wall  time.Time // what the system's clock said then
}

func newClock() clock {
	now := time.Now()
	return clock{began: now, wall: now.Round(0)}
}

// stamp is the time of a registration: the later one. A registration that looks
// older than it is would end by an answer of APNs about the time before it; of
// one that looks younger, a dead device is pushed to now and then until APNs
// names a later time.
func (c clock) stamp() time.Time {
	set, passed := c.times(time.Now())
	return fromMillis(max(set.UnixMilli(), passed.UnixMilli()))
}

// due is the time by which lifetimes have passed: the earlier one.
func (c clock) due() time.Time {
	set, passed := c.times(time.Now())
	return fromMillis(min(set.UnixMilli(), passed.UnixMilli()))
}

// times returns what the system's clock says, and what it would say if nobody
// had set it.
func (c clock) times(now time.Time) (set, passed time.Time) {
	return now, c.wall.Add(now.Sub(c.began))
}
