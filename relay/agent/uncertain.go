package agent

import (
	"slices"
	"time"
)

// What a mailbox shows is uncertain for MaxInFlight, which a relay's Welcome tells,
// from when
//
//   - a stream ended on which a count of it had not settled: the relay at the
//     other end may not know it yet, and may push that count after the newer one
//     that another relay has pushed; or its process was killed, and what its system
//     still sends comes after the newer one of the process that followed it;
//   - this process began, or took over: another process of the agent may have had
//     a count of it in flight;
//   - a device came to it: the relay that is sent its count may not know of the
//     device yet, and another one may push it the count of the mailbox that it left.
//
// What is to be sent goes to the next relay at once, as always. When the time is
// over the newest count is sent once more, even if it has settled: whatever came
// late is then put right. A process that stands by leaves that to the active one.

// uncertainty is entries that have become uncertain together, those left out that
// are uncertain for longer since: an entry is in one of them at most, so that a
// stream that breaks again and again costs no more memory than its mailboxes.
type uncertainty struct {
	until   time.Time
	entries []*entry
}

// begin says that a process has become active: what it sends until maxInFlight is
// over is uncertain.
func (u *unsettled) begin(maxInFlight time.Duration, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.begun = true
	u.maxInFlight = maxInFlight
	u.beginsUntil = now.Add(maxInFlight)
}

// beginOnce does so for the process's first stream.
func (u *unsettled) beginOnce(maxInFlight time.Duration, now time.Time) {
	u.mu.Lock()
	begun := u.begun
	u.mu.Unlock()
	if !begun {
		u.begin(maxInFlight, now)
	}
}

// arrivals are the mailboxes to which a device came lately, with the second in which
// it did. Guarded by unsettled.mu.
type arrivals struct {
	base           time.Time // of the seconds
	since          int64     // when recent began
	recent, before map[string]int64
}

// second returns the second of a, counted from its first, in which now is.
func (a *arrivals) second(now time.Time) int64 {
	if a.base.IsZero() {
		a.base = now
	}
	return int64(now.Sub(a.base) / time.Second)
}

// forget forgets what was longer ago than d, or twice as long.
func (a *arrivals) forget(d time.Duration, now time.Time) {
	switch age := time.Duration(a.second(now)-a.since) * time.Second; {
	case age > 2*d:
		a.recent, a.before, a.since = nil, nil, a.second(now)
	case age > d:
		a.recent, a.before, a.since = nil, a.recent, a.second(now)
	}
}

// until returns until when the mailbox's count is uncertain: in whole seconds, so
// that many become certain together. Zero: no device came to it.
func (a *arrivals) until(mailbox string, d time.Duration) time.Time {
	second, came := a.recent[mailbox]
	if !came {
		second, came = a.before[mailbox]
	}
	if !came {
		return time.Time{}
	}
	return a.base.Add(time.Duration(second+1)*time.Second + d)
}

// subscribed notes that a device came to a mailbox.
func (u *unsettled) subscribed(mailbox string, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.begun { // else nobody knows yet for how long
		u.arrivals.forget(u.maxInFlight, now)
		if u.maxInFlight == 0 {
			return
		}
	}
	if u.arrivals.recent == nil {
		u.arrivals.recent = map[string]int64{}
	}
	u.arrivals.recent[mailbox] = u.arrivals.second(now)
}

// sent makes entries uncertain that go out on l, as far as they are. The caller
// holds mu.
func (u *unsettled) sent(f *inFlight, entries []*entry, now time.Time) {
	u.arrivals.forget(f.maxInFlight, now)
	if f.maxInFlight == 0 || len(u.arrivals.recent)+len(u.arrivals.before) == 0 {
		if now.Before(u.beginsUntil) {
			u.markUncertain(entries, u.beginsUntil)
		}
		return
	}
	uncertain := map[time.Time][]*entry{}
	for _, e := range entries {
		until := u.arrivals.until(e.mailbox, f.maxInFlight)
		if until.Before(u.beginsUntil) {
			until = u.beginsUntil
		}
		if now.Before(until) {
			uncertain[until] = append(uncertain[until], e)
		}
	}
	for until, entries := range uncertain {
		u.markUncertain(entries, until)
	}
}

// markUncertain makes entries uncertain until a time; those that are for longer
// stay so. The caller holds mu.
func (u *unsettled) markUncertain(entries []*entry, until time.Time) {
	at := slices.IndexFunc(u.uncertain, func(d uncertainty) bool { return d.until.Equal(until) })
	if at < 0 {
		at = len(u.uncertain)
		u.uncertain = append(u.uncertain, uncertainty{until: until})
		notify(u.wake) // the sender sets its timer
	}
	added := &u.uncertain[at]
	longer := false
	for _, e := range entries {
		if e.uncertainUntil.Before(until) {
			longer = longer || !e.uncertainUntil.IsZero()
			e.uncertainUntil = until
			added.entries = append(added.entries, e)
		}
	}
	if longer {
		for i := range u.uncertain {
			u.uncertain[i].leaveOut()
		}
	}
	u.uncertain = slices.DeleteFunc(u.uncertain, func(d uncertainty) bool { return len(d.entries) == 0 })
}

// leaveOut leaves out entries that are uncertain for longer, and gives their
// memory back. The caller holds mu.
func (d *uncertainty) leaveOut() {
	left := slices.DeleteFunc(d.entries, func(e *entry) bool { return !e.uncertainUntil.Equal(d.until) })
	if len(left) < len(d.entries) {
		d.entries = slices.Clone(left)
	}
}

// resendDue makes those ready again whose time has come, and returns when the next
// one's does; zero: there is none.
func (u *unsettled) resendDue(now time.Time) (next time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.uncertain = slices.DeleteFunc(u.uncertain, func(d uncertainty) bool {
		if d.until.After(now) {
			if next.IsZero() || d.until.Before(next) {
				next = d.until
			}
			return false
		}
		for _, e := range d.entries {
			u.resendEntry(e)
		}
		return true
	})
	return next
}

// resendEntry has an entry sent once more. The caller holds mu.
func (u *unsettled) resendEntry(e *entry) {
	e.uncertainUntil = time.Time{}
	switch e.place {
	case placeUncertain:
		u.enqueue(e)
	case placeFlight:
		e.resend = true
	case placeReady, placeBehind: // it is still to be sent
	}
}

// dropSettled has nothing sent once more that has settled until now, or settles before it
// is sent again: another process is active, and at a takeover it would go over what that
// one has sent. What has not settled is held. The caller holds mu.
func (u *unsettled) dropSettled() {
	u.ready = slices.DeleteFunc(u.ready[u.head:], func(e *entry) bool { return e.settled })
	u.head, u.uncertain = 0, nil
	for _, e := range u.entries {
		e.uncertainUntil, e.resend = time.Time{}, false
		if !e.settled {
			continue
		}
		if e.sentOn != nil { // once more: that settlement tells nothing new
			delete(e.sentOn.bySequence, e.sequence)
		}
		delete(u.entries, e.mailbox)
	}
	u.settled = 0
}
