package apnstest

import (
	"errors"
	"net"
	"slices"
	"time"

	"golang.org/x/net/http2"
)

// floodPings is how many PINGs a flood has. Ours: some 17 KB, more than one
// TLS record.
const floodPings = 1000

// strike injects a fault of connections from outside.
func (c *conn) strike(f Fault) {
	c.sim.counters.inject(f)
	c.log.Info("fault injected", "fault", f.String())
	c.mu.Lock()
	c.strikeLocked(f, nil)
	c.mu.Unlock()
	c.signal()
}

// strikeLocked injects a fault of connections; at is the request it came with,
// if any. mu must be held.
func (c *conn) strikeLocked(f Fault, at *stream) {
	hold := c.sim.plan.Load().hold()
	switch f {
	case FaultWedge:
		c.wedged = true
	case FaultStallSocket:
		c.stalled = true
		c.halt.Store(true)
	case FaultReset:
		if tcp, ok := c.raw.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a plain close is what remains without
		}
		c.forgetUnread(time.Now())
		c.abort(errors.New("reset by injected fault"))
	case FaultHalfClose:
		c.halfClose = true
	case FaultGoAway, FaultGoAwayEarly, FaultGoAwayTwice, FaultGoAwayText, FaultGoAwayTruncated:
		c.strikeGoAway(f, at)
	case FaultLimitOne:
		c.setLimit(1)
		c.after(hold, c.restoreLimit)
	case FaultLimitZero:
		c.setLimit(0)
		c.after(hold, c.restoreLimit)
	case FaultStarveWindow:
		c.starved = true
		c.after(hold, func() {
			c.starved = false
			c.giveBack()
		})
	case FaultIgnorePing:
		c.noPing = true
	case FaultPingFlood:
		for i := range floodPings {
			_ = c.framer.WritePing(false, [8]byte{'f', 'l', 'o', 'o', 'd', byte(i >> 8), byte(i)}) // into memory
		}
	}
	c.signal()
}

// strikeGoAway sends one of the ways to say goodbye.
func (c *conn) strikeGoAway(f Fault, at *stream) {
	switch f {
	case FaultGoAway:
		c.goAway(c.processed, http2.ErrCodeNo, reasonJSON("Shutdown"))
	case FaultGoAwayTwice:
		c.goAway(1<<31-1, http2.ErrCodeNo, reasonJSON("Shutdown"))
		c.goAway(c.processed, http2.ErrCodeNo, reasonJSON("Shutdown"))
	case FaultGoAwayTruncated:
		c.goAway(c.processed, http2.ErrCodeInternal, []byte(`{"reason":"Internal`))
	case FaultGoAwayText:
		c.goAway(c.processed, http2.ErrCodeRefusedStream, []byte(overLimitText))
		c.end()
	case FaultGoAwayEarly:
		c.goAwayEarly(at)
	}
}

// goAwayEarly disowns the later half of what is in flight, none of which was
// processed.
func (c *conn) goAwayEarly(at *stream) {
	var ids []uint32
	for id, st := range c.streams {
		if !st.recorded { // a recorded one stalls, and was processed
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	last := c.processed
	if len(ids) > 0 {
		last = ids[len(ids)/2] - 1
		if last%2 == 0 && last > 0 {
			last--
		}
	}
	c.goAway(last, http2.ErrCodeNo, reasonJSON("Shutdown"))
	for _, id := range ids {
		if id > last {
			c.drop(c.streams[id], "disowned by GOAWAY")
		}
	}
	if at != nil && len(c.streams) == 0 {
		c.end()
	}
}
