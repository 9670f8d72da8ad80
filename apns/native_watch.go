package apns

import (
	"encoding/binary"
	"math"
	"time"

	"golang.org/x/net/http2"
)

// watch sees to everything that time decides: the first SETTINGS, overdue
// answers, keepalive, the end of a drain. It returns how long it may be
// left alone, or why the connection has to end.
func (w *nativeWriter) watch(now time.Time) (time.Duration, error) {
	c := w.c
	if !w.settled {
		if wait := settingsTimeout - now.Sub(c.began); wait > 0 {
			if c.leaving.Load() {
				return 0, errDrained
			}
			return wait, nil
		}
		return 0, errNoSettings
	}
	if last := c.lastGood.Load(); last != math.MaxUint32 && !w.goneAway {
		// The reader failed streams when GOAWAY came; what was opened meanwhile is ours.
		w.goneAway = true
		c.failStreams(last, ReasonGoneAway, c.cause())
	}
	if c.leaving.Load() {
		if err := w.watchLeaving(now); err != nil {
			return 0, err
		}
	}
	wait, err := w.keepAlive(now)
	if !w.leaveBy.IsZero() {
		wait = min(wait, w.leaveBy.Sub(now))
	}
	if !w.holdUntil.IsZero() {
		wait = min(wait, max(w.holdUntil.Sub(now), 0))
	}
	return wait, err
}

// watchLeaving ends the connection when all answers are in, or are no longer
// waited for.
func (w *nativeWriter) watchLeaving(now time.Time) error {
	c := w.c
	w.grant()
	if w.leaveBy.IsZero() {
		w.leaveBy = now.Add(max(c.pool.config.AnswerTimeout, c.pool.config.DrainTimeout))
	}
	if w.started != c.ended.Load() {
		if now.Before(w.leaveBy) {
			return nil
		}
		c.failStreams(0, ReasonTimeout, c.cause())
	}
	c.mu.Lock()
	w.takeControlLocked() // the RST_STREAM, perhaps, that ended the last stream
	c.mu.Unlock()
	w.buf = appendGoAway(w.buf, http2.ErrCodeNo, "")
	return errDrained
}

// keepAlive sends a PING when answers are overdue or the connection
// was silent for an hour, and gives up what is overdue for too long.
func (w *nativeWriter) keepAlive(now time.Time) (time.Duration, error) {
	c, timeout := w.c, w.pool().config.AnswerTimeout
	open := w.started - c.ended.Load()
	wait := timeout / 4
	asked := w.pings != c.pongs.Load()
	if asked {
		left := w.pool().config.PingTimeout - now.Sub(w.pinged)
		if left <= 0 {
			return 0, errPingTimeout
		}
		wait = min(wait, left)
	}
	if open == 0 {
		if asked {
			return wait, nil
		}
		silent := now.Sub(latest(c.at(c.lastFrame.Load()), w.pinged, c.at(c.lastPush.Load())))
		if silent >= idlePing {
			w.ping(now)
			return w.pool().config.PingTimeout, nil
		}
		return idlePing - silent, nil
	}
	if now.Sub(w.looked) < timeout/4 {
		return wait, nil
	}
	w.looked = now
	age := w.giveUpOverdue(now, 3*timeout)
	if age >= timeout && !asked && now.Sub(w.pinged) >= timeout {
		w.ping(now)
		wait = min(wait, w.pool().config.PingTimeout)
	}
	return wait, nil
}

// giveUpOverdue ends pushes that wait longer than limit, and the connection
// with them: a stream that is stuck while PINGs are answered means a peer that
// lost it. It returns the age of the oldest push that is left.
func (w *nativeWriter) giveUpOverdue(now time.Time, limit time.Duration) time.Duration {
	c := w.c
	var oldest time.Duration
	var results []Result
	for i := range c.table.slots {
		s := &c.table.slots[i]
		id := s.id.Load()
		if id == slotFree || id == slotClaimed {
			continue
		}
		age := now.Sub(c.at(s.written))
		if age < limit {
			oldest = max(oldest, age)
			continue
		}
		c.drain() // before claiming: nothing is opened in this slot any more
		if s.claim(id) {
			results = append(results, Result{Tag: s.tag, Err: transportError(ReasonTimeout, nil), WrittenAt: c.at(s.written)})
			w.buf = appendReset(w.buf, id, http2.ErrCodeCancel)
		}
	}
	if len(results) > 0 {
		c.ended.Add(int64(len(results)))
		c.inFlight.Add(-int64(len(results)))
		c.pool.finish(results)
	}
	return oldest
}

func (w *nativeWriter) ping(now time.Time) {
	w.pings++
	w.pinged = now
	w.buf = appendFrameHeader(w.buf, 8, http2.FramePing, 0, 0)
	w.buf = binary.BigEndian.AppendUint64(w.buf, w.pings)
}

func latest(times ...time.Time) (t time.Time) {
	for _, u := range times {
		if u.After(t) {
			t = u
		}
	}
	return t
}
