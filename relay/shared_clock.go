package relay

import (
	"sync"
	"time"
)

// sharedClock is the clock that all relays share, as far as a relay knows it: it
// is that late or later. So what a relay received before another did is not taken
// for newer, however long it was on its way.
type sharedClock struct {
	mu           sync.Mutex // a leaf
	offset       int64      // of the shared clock in Unix nanoseconds against the relay's
	offsetBefore int64      // what it was before it fell last, for what was received until then
	fellAt       int64      // when that was, on the relay's clock
	noted        int64      // when offset was noted, on the relay's clock; 0: never
}

// clockMemory is how long a reading is believed that says more than later ones:
// the two clocks drift apart, and the shared one may be set.
const clockMemory = 30 * time.Second

// note takes a reading of the shared clock, made before now.
func (c *sharedClock) note(shared time.Time, now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	offset := shared.UnixNano() - now
	if c.noted == 0 || offset >= c.offset || now-c.noted > int64(clockMemory) {
		if offset < c.offset {
			c.offsetBefore, c.fellAt = c.offset, now
		}
		c.offset, c.noted = offset, now
	}
}

func (c *sharedClock) known(now int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.noted != 0 && now-c.noted <= 2*int64(clockMemory)
}

func (c *sharedClock) at(relay int64) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := relay + c.offset
	if fell := c.offsetBefore - c.offset; fell > 0 && fell < int64(clockMemory) { // the order of what this relay received stays
		at = max(at, min(relay, c.fellAt)+c.offsetBefore)
	}
	return time.Unix(0, at).UTC().Truncate(time.Microsecond) // as the registry keeps it
}
