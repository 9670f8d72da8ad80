package relay

import "time"

// sharedClock is what a relay knows of the clock that all relays share. It may be
// behind that clock, and is never ahead of it. So what a relay received before
// another one did is not taken for newer, however long it was on its way.
type sharedClock struct {
	offset int64 // of the shared clock in Unix nanoseconds against the relay's, at least
	most   int64 // at most
	noted  int64 // when both were noted, on the relay's clock; 0: never
	eras   []clockEra
}

// clockEra is an offset that held until another did. What was received in it stays
// dated by it: dated anew, an old count could pass for newer than another relay's.
type clockEra struct {
	until, offset int64
	set           bool // the clock was set then; else only readings became worse
}

const (
	// clockMemory is how long a reading is believed that says more than later ones:
	// the two clocks drift apart, and the shared one may be set.
	clockMemory = 30 * time.Second
	// clockDrift is what the two clocks may drift apart between two readings, at most;
	// more says that one was set.
	clockDrift = 100 * time.Millisecond
	// clockEras is how many are kept. A clock is seldom set.
	clockEras = 8
)

// note takes a reading of the shared clock, made between two times of the relay's.
func (c *sharedClock) note(shared time.Time, sent, now int64) {
	offset, most := shared.UnixNano()-now, shared.UnixNano()-sent
	if c.noted != 0 {
		set := offset > c.most+int64(clockDrift) || most < c.offset-int64(clockDrift)
		if offset < c.offset && !set && now-c.noted <= int64(clockMemory) {
			return
		}
		if set || offset < c.offset {
			c.end(clockEra{now, c.offset, set})
		}
	}
	c.offset, c.most, c.noted = offset, most, now
}

// end notes an era that is over.
func (c *sharedClock) end(e clockEra) {
	if last := len(c.eras) - 1; last >= 0 && !c.eras[last].set {
		c.eras = c.eras[:last]
	}
	if len(c.eras) == clockEras {
		c.eras = append(c.eras[:0], c.eras[1:]...)
	}
	c.eras = append(c.eras, e)
}

func (c *sharedClock) known(now int64) bool {
	return c.noted != 0 && now-c.noted <= 2*int64(clockMemory)
}

// at returns what the shared clock said at a time of the relay's. The order of times
// stays, save where the clock was far ahead: what comes now is not to wait for that.
func (c *sharedClock) at(relay int64) time.Time {
	offset, least := c.offset, int64(0)
	for _, e := range c.eras {
		if e.offset-c.offset >= int64(clockMemory) {
			continue
		}
		if relay <= e.until {
			offset = e.offset
			break
		}
		least = max(least, e.until+e.offset)
	}
	return time.Unix(0, max(relay+offset, least)).UTC().Truncate(time.Microsecond) // as the registry keeps it
}
