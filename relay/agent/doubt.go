package agent

import (
	"slices"
	"time"
)

// A mailbox is in doubt when a stream has ended on which a count of it had not
// settled: the relay at the other end may not know it yet, and may push that
// count after the newer one that another relay has pushed. What is in flight
// goes to the next relay at once, as always. When the first relay has certainly
// given up (its Welcome said how long that takes), the newest count is sent once
// more, even if it has settled: whatever came late is then put right.

// doubts are entries that came into doubt together, those left out whose doubt
// has got longer since: an entry is in one of them at most, so that a stream that
// breaks again and again costs no more memory than its mailboxes.
type doubts struct {
	until   time.Time
	entries []*entry
}

// doubt puts entries in doubt. The caller holds mu.
func (u *unsettled) doubt(entries []*entry, now time.Time, maxInFlight time.Duration) {
	if maxInFlight <= 0 {
		return
	}
	added := doubts{until: now.Add(maxInFlight)}
	for _, e := range entries {
		if e.doubt.Before(added.until) {
			e.doubt = added.until
			added.entries = append(added.entries, e)
		}
	}
	u.doubts = append(u.doubts, added)
	for i := range u.doubts {
		u.doubts[i].forget()
	}
	u.doubts = slices.DeleteFunc(u.doubts, func(d doubts) bool { return len(d.entries) == 0 })
}

// forget leaves out entries whose doubt has got longer, and gives their memory
// back. The caller holds mu.
func (d *doubts) forget() {
	left := slices.DeleteFunc(d.entries, func(e *entry) bool { return !e.doubt.Equal(d.until) })
	if len(left) < len(d.entries) {
		d.entries = slices.Clone(left)
	}
}

// recall makes those ready again whose doubt's time has come, and returns when
// the next one's does; zero: there is none.
func (u *unsettled) recall(now time.Time) (next time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.doubts = slices.DeleteFunc(u.doubts, func(d doubts) bool {
		if d.until.After(now) {
			if next.IsZero() || d.until.Before(next) {
				next = d.until
			}
			return false
		}
		for _, e := range d.entries {
			u.recallEntry(e)
		}
		return true
	})
	return next
}

// recallEntry ends an entry's doubt. The caller holds mu.
func (u *unsettled) recallEntry(e *entry) {
	e.doubt = time.Time{}
	switch e.place {
	case placeKept:
		u.enqueue(e)
	case placeFlight:
		e.again = true
	case placeReady, placeBehind: // it is still to be sent
	}
}
