package ingest

import (
	"encoding/binary"
	"sync"
	"time"
)

const (
	// pingAfter is how long an agent may say nothing before it is sent a PING. Its
	// answer has time until twice silence is over. Ours: the later, the fewer PINGs.
	pingAfter = 2*silence - 5*time.Second
	// keepaliveTick is what PINGs wait for, so that those of many connections go
	// together: waking up for each costs as much as sending it.
	keepaliveTick = 100 * time.Millisecond
)

// pingFrame is a PING, whose answer gRPC passes over. RFC 9113, section 6.7.
var pingFrame = binary.BigEndian.AppendUint64([]byte{0, 0, 8, framePing, 0, 0, 0, 0, 0}, 0x62616467_6572656c)

// keepalive finds out whether the peer of a connection is still there. It does so in
// place of gRPC, whose goroutine for it wakes three times for each PING, each
// connection's at a time of its own: most of what idle agents cost.
type keepalive struct {
	timer *time.Timer // runs check

	mu   sync.Mutex // held while the timer is set
	over bool
}

// start has check run from now on.
func (k *keepalive) start(check func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.timer = time.AfterFunc(tickAfter(pingAfter, keepaliveTick), check)
}

// again has check run once more after d.
func (k *keepalive) again(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.over {
		k.timer.Reset(d)
	}
}

func (k *keepalive) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over = true; k.timer != nil {
		k.timer.Stop()
	}
}

// checkPeer asks a peer that has said nothing for a while whether it is there, and
// closes the connection when that has had no answer. The timer runs it.
func (c *transportConn) checkPeer() {
	switch quiet := c.quiet(); {
	case quiet > 2*silence-keepaliveTick:
		_ = c.Close() // gRPC learns of it from the next read
	case quiet < pingAfter:
		c.keepalive.again(tickAfter(pingAfter-quiet, keepaliveTick))
	default:
		c.keepalive.again(tickBefore(2*silence-quiet, keepaliveTick)) // first, since a peer that does not read holds up what is written
		if !c.ping() {
			c.keepalive.again(keepaliveTick)
		}
	}
}

// ping sends a PING, unless gRPC is writing or has written a part of a frame.
func (c *transportConn) ping() (sent bool) {
	if !c.writing.TryLock() {
		return false
	}
	defer c.writing.Unlock()
	if !c.prefaced.Load() || !c.written.between() {
		return false
	}
	if _, err := c.Conn.Write(pingFrame); err != nil {
		c.over.Store(true)
	}
	return true
}

// tickAfter returns the time until the first tick that is not before d from now.
func tickAfter(d, tick time.Duration) time.Duration {
	due := time.Now().Add(d)
	return d + (tick-due.Sub(due.Truncate(tick)))%tick
}

// tickBefore returns the time until the last tick that is not after d from now.
func tickBefore(d, tick time.Duration) time.Duration {
	due := time.Now().Add(d)
	return d - due.Sub(due.Truncate(tick))
}
