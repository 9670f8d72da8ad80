package apnstest

import "time"

// line holds back what the server says by Config.RoundTrip, so that a near
// simulator looks like a far one. One timer, the writer's, serves it, and
// nothing is held for each answer. The connection's mutex guards it.
type line struct {
	chunks []chunk // earliest first
	free   [][]byte
}

// chunk is what was said at one moment.
type chunk struct {
	due     time.Time
	frames  []byte
	answers int // whole answers in it
}

// maxFreeChunks bounds the buffers kept: some 200 ms of turns a millisecond
// apart. Ours.
const maxFreeChunks = 256

// answerLate counts a stream as open for as long as its answer is on the line:
// the client can't know that it has ended. mu must be held.
func (c *conn) answerLate() {
	if c.sim.cfg.RoundTrip > 0 {
		c.late++
		c.fresh++
	}
}

// holdBack puts what is to be written on the line, and what has come to its end
// in its place. It returns the time until more does. mu must be held.
func (c *conn) holdBack(now time.Time) (wait time.Duration) {
	l := &c.line
	if len(c.out.b) > 0 {
		l.chunks = append(l.chunks, chunk{now.Add(c.sim.cfg.RoundTrip), c.out.b, c.fresh})
		c.out.b, c.fresh = nil, 0
		if n := len(l.free); n > 0 {
			c.out.b, l.free = l.free[n-1], l.free[:n-1]
		}
	}
	due := 0
	for due < len(l.chunks) && !l.chunks[due].due.After(now) {
		ch := &l.chunks[due]
		c.out.b = append(c.out.b, ch.frames...)
		c.late -= ch.answers
		if len(l.free) < maxFreeChunks {
			l.free = append(l.free, ch.frames[:0])
		}
		due++
	}
	clear(l.chunks[:due])
	l.chunks = append(l.chunks[:0], l.chunks[due:]...)
	if len(l.chunks) == 0 {
		return time.Hour
	}
	return l.chunks[0].due.Sub(now)
}
