package apns

import (
	"encoding/binary"
	"math"
	"time"

	"golang.org/x/net/http2"
)

// watch sees to everything that time decides: the first SETTINGS, overdue
// answers, signs of life, the end of a drain. It returns how long it may be
// left alone, or why the connection has to end.
func (w *nativeWriter) watch(now time.Time) (time.Duration, error) {
	l := w.l
	if !w.settled {
		if wait := settingsTimeout - now.Sub(l.began); wait > 0 {
			if l.leaving.Load() {
				return 0, errDrained
			}
			return wait, nil
		}
		return 0, errNoSettings
	}
	if last := l.lastGood.Load(); last != math.MaxUint32 && !w.goneAway {
		// The reader swept when GOAWAY came; what was opened meanwhile is ours.
		w.goneAway = true
		l.sweep(last, ReasonGoneAway, l.cause())
	}
	if l.leaving.Load() {
		if err := w.watchLeaving(now); err != nil {
			return 0, err
		}
	}
	wait, err := w.watchLife(now)
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
	l := w.l
	w.grant()
	if w.leaveBy.IsZero() {
		w.leaveBy = now.Add(max(l.pool.config.AnswerTimeout, l.pool.config.DrainTimeout))
	}
	if w.started != l.ended.Load() {
		if now.Before(w.leaveBy) {
			return nil
		}
		l.sweep(0, ReasonTimeout, l.cause())
	}
	l.mu.Lock()
	w.takeControlLocked() // the RST_STREAM, perhaps, that ended the last stream
	l.mu.Unlock()
	w.buf = appendGoAway(w.buf, http2.ErrCodeNo, "")
	return errDrained
}

// watchLife asks for a sign of life when answers are overdue or the connection
// was silent for an hour, and gives up what is overdue for too long.
func (w *nativeWriter) watchLife(now time.Time) (time.Duration, error) {
	l, patience := w.l, w.pool().config.AnswerTimeout
	open := w.started - l.ended.Load()
	wait := patience / 4
	asked := w.pings != l.pongs.Load()
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
		silent := now.Sub(latest(l.at(l.lastFrame.Load()), w.pinged, l.at(l.lastPush.Load())))
		if silent >= idlePing {
			w.ping(now)
			return w.pool().config.PingTimeout, nil
		}
		return idlePing - silent, nil
	}
	if now.Sub(w.looked) < patience/4 {
		return wait, nil
	}
	w.looked = now
	age := w.giveUpOverdue(now, 3*patience)
	if age >= patience && !asked && now.Sub(w.pinged) >= patience {
		w.ping(now)
		wait = min(wait, w.pool().config.PingTimeout)
	}
	return wait, nil
}

// giveUpOverdue ends pushes that wait longer than limit, and the connection
// with them: a stream that is stuck while PINGs are answered means a peer that
// lost it. It returns the age of the oldest push that is left.
func (w *nativeWriter) giveUpOverdue(now time.Time, limit time.Duration) time.Duration {
	l := w.l
	var oldest time.Duration
	var results []Result
	for i := range l.table.slots {
		s := &l.table.slots[i]
		id := s.id.Load()
		if id == slotFree || id == slotClaimed {
			continue
		}
		age := now.Sub(l.at(s.written))
		if age < limit {
			oldest = max(oldest, age)
			continue
		}
		l.drain() // before claiming: nothing is opened in this slot any more
		if s.claim(id) {
			results = append(results, Result{Tag: s.tag, Err: transportError(ReasonTimeout, nil), WrittenAt: l.at(s.written)})
			w.buf = appendReset(w.buf, id, http2.ErrCodeCancel)
		}
	}
	if len(results) > 0 {
		l.ended.Add(int64(len(results)))
		l.inFlight.Add(-int64(len(results)))
		l.pool.finish(results)
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
