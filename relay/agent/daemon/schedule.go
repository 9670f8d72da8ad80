package daemon

import (
	"container/heap"
	"time"

	"badgerelay/relay/agent/internal/backoff"
)

// mailbox is one that has a device. It belongs to mailboxes.mu.
type mailbox struct {
	name   string
	state  state
	again  state     // beingAsked: where it waits when it was counted; unknown: it need not
	mended bool      // beingAsked: what it may fail of was mended meanwhile
	full   bool      // its count did not fit
	gone   bool      // not told since the watch began anew
	failed int       // times in a row that there was no count
	stale  int       // times in a row that another agent's count was newer
	tried  time.Time // when it was asked last
	first  bool      // it had not failed when it was asked; its asker's while beingAsked
	named  bool      // the log has named it since it was counted last
	by     *counter  // that counted it last; nil: none has; only its asker changes it
	due    time.Time // idle: when it is asked again
	index  int       // in idle

	newest newest
}

// state is what a mailbox waits for. Of those that wait to be asked, the urgent
// come first, then the patient at their pace, and those that failed last.
type state uint8

const (
	unknown   state = iota // it has no device
	isIdle                 // in idle, until it is due
	inLate                 // it failed the last time
	inPatient              // nobody waits for it
	inUrgent               // it has changed, or a device has come
	beingAsked
)

// How long a mailbox is idle, at most; half of it at least. Ours.
const (
	// recount is for one that was counted: a change that nobody told is found
	// then, and a hundred thousand mailboxes are some ten counts a second.
	recount = 6 * time.Hour
	// fullPause is for one whose count did not fit.
	fullPause = time.Minute
	// newsPause is how long a change of a mailbox that failed is not asked about:
	// it is not news of what it failed of, and protections against attacks count
	// each refusal.
	newsPause = 5 * time.Minute
	// stalePause is how long another agent's version is remembered (relay.proto,
	// message Event), and some time.
	stalePause = 11 * time.Minute
)

// pauses are how long a mailbox is idle that failed: doubled from least to most.
var pauses = map[asked]struct{ least, most time.Duration }{
	askedRefused:     {10 * time.Second, 30 * time.Minute}, // no protection against attacks minds
	askedUnavailable: {2 * time.Second, 5 * time.Minute},
	askedUnreachable: {time.Second, time.Minute}, // it is not the mailbox's fault
}

func (a asked) pause(failed int) time.Duration {
	p := pauses[a]
	return backoff.Doubled(failed, p.least, p.most)
}

// enqueue puts a mailbox into a queue, or has it asked again after the count
// that is under way; where nobody can be asked it does neither. The caller holds mu.
func (m *mailboxes) enqueue(box *mailbox, urgent bool) {
	switch {
	case m.blind:
	case box.state == beingAsked && urgent:
		box.again = inUrgent
	case box.state == beingAsked:
		box.again = max(box.again, inPatient)
	case urgent && box.state != inUrgent:
		m.move(box, inUrgent) // its place in another queue is skipped
	case box.state < inPatient:
		m.move(box, inPatient)
	}
}

// news has a mailbox asked at once, or, if it failed, not much later. The
// caller holds mu.
func (m *mailboxes) news(box *mailbox) {
	if box.failed == 0 || box.state == beingAsked {
		m.enqueue(box, true)
		return
	}
	if soon := box.tried.Add(newsPause); box.state == isIdle && soon.Before(box.due) {
		box.due = soon
		heap.Fix(&m.idle, box.index)
	}
}

// move takes a mailbox to another state, or to its new place in idle. The
// caller holds mu.
func (m *mailboxes) move(box *mailbox, to state) {
	switch {
	case box.state == isIdle:
		heap.Remove(&m.idle, box.index)
	case box.state > isIdle:
		m.waiting--
	}
	if to > isIdle {
		m.waiting++
	}
	box.state = to
	switch to {
	case isIdle:
		heap.Push(&m.idle, box)
	case inLate:
		m.late.push(box)
	case inPatient:
		m.patient.push(box)
	case inUrgent:
		m.urgent.push(box)
	}
}

// postpone has a mailbox asked again after some time, d at most. The caller holds mu.
func (m *mailboxes) postpone(box *mailbox, now time.Time, d time.Duration) {
	box.due = now.Add(backoff.Jittered(d))
	m.move(box, isIdle)
}

// activate queues those that have rested. The caller holds mu.
func (m *mailboxes) activate(now time.Time) {
	for len(m.idle) > 0 && !m.idle[0].due.After(now) {
		box := m.idle[0]
		to := inPatient
		if box.failed > 0 {
			to = inLate
		}
		m.move(box, to)
	}
}

// take returns the next mailbox to ask; nil: none is due within wait, or, where
// wait is 0, until wake.
func (m *mailboxes) take(now time.Time) (box *mailbox, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if pause := m.allPaused(now); pause > 0 {
		return nil, pause
	}
	m.activate(now)
	if len(m.idle) > 0 {
		wait = m.idle[0].due.Sub(now)
	}
	box = m.urgent.pop(inUrgent)
	if box == nil && (m.patient.peek(inPatient) != nil || m.mayRetry() && m.late.peek(inLate) != nil) {
		if now.Before(m.patientAt) {
			return nil, sooner(wait, m.patientAt.Sub(now))
		}
		m.patientAt = now.Add(m.interval)
		if box = m.patient.pop(inPatient); box == nil {
			box = m.late.pop(inLate)
		}
	}
	if box == nil {
		return nil, wait
	}
	m.move(box, beingAsked)
	box.tried, box.first = now, box.failed == 0
	if box.failed > 0 {
		m.retrying++
	}
	notify(m.wake) // there may be more, for another worker
	return box, 0
}

// mayRetry says whether one that failed may be asked again: of several workers
// one is kept for the others, because an answer may take its whole time. The
// caller holds mu.
func (m *mailboxes) mayRetry() bool { return m.retrying < max(m.workers-1, 1) }

// othersWait says whether mailboxes that have not failed wait to be asked.
func (m *mailboxes) othersWait() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.activate(time.Now())
	return m.urgent.peek(inUrgent) != nil || m.patient.peek(inPatient) != nil
}

// countedBy returns which source counted a mailbox last; nil: none has.
func (m *mailboxes) countedBy(name string) *counter {
	m.mu.Lock()
	defer m.mu.Unlock()
	if box := m.known[name]; box != nil {
		return box.by
	}
	return nil
}

// answer is what came of asking for a mailbox.
type answer struct {
	asked
	by     *counter // that counted it; nil: none did
	paused bool     // for want of a source that is left alone, as the log has told
}

// asked takes a mailbox back from a worker, who looks for the next then. It says whether
// the log is to name it: it could not be counted, and has not been named since it was.
func (m *mailboxes) asked(box *mailbox, now time.Time, a answer) (name bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	failed := box.failed
	if failed > 0 {
		m.retrying--
		notify(m.wake)
	}
	if box.state != beingAsked {
		return false // no device is left
	}
	again, mended, full := box.again, box.mended, box.full
	box.again, box.mended, box.full, box.failed = unknown, false, false, failed+1
	if a.asked == askedCounted {
		box.failed, box.by, box.named = 0, a.by, false
	}
	m.uncounted += min(box.failed, 1) - min(failed, 1)
	switch {
	case a.asked != askedCounted && mended:
		m.move(box, inLate)
	case a.asked != askedCounted:
		m.postpone(box, now, a.pause(failed))
	case again != unknown:
		m.move(box, again)
	case full:
		m.postpone(box, now, fullPause)
	default:
		m.postpone(box, now, recount)
	}
	name = a.asked != askedCounted && !a.paused && !box.named
	box.named = box.named || name
	return name
}

// outdated: the relay has a newer version from another agent. The mailbox is
// counted at once, and, if that is outdated too, when the relay has forgotten
// the other's. It says whether the second is so, for the first time in a row.
func (m *mailboxes) outdated(name string, now time.Time) (again bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	box := m.known[name]
	if box == nil {
		return false
	}
	box.stale++
	switch {
	case box.stale == 1:
		m.stale++
		m.enqueue(box, true)
		notify(m.wake)
	case box.state == isIdle:
		box.due = now.Add(stalePause)
		heap.Fix(&m.idle, box.index)
		notify(m.wake)
	}
	return box.stale == 2
}

// upToDate: a count of the mailbox was not outdated.
func (m *mailboxes) upToDate(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if box := m.known[name]; m.stale > 0 && box != nil && box.stale > 0 {
		box.stale = 0
		m.stale--
	}
}

// full: a count of the mailbox did not fit.
func (m *mailboxes) full(name string, now time.Time) {
	m.mu.Lock()
	box := m.known[name]
	switch {
	case box == nil: // it is asked when the relay has told it
	case box.state == beingAsked:
		box.full = true
	case box.state == isIdle && box.due.After(now.Add(fullPause)):
		m.postpone(box, now, fullPause)
	}
	m.mu.Unlock()
	notify(m.wake)
}

// retry has those that failed asked anew, mailboxes and sources: what they failed of
// may be mended.
func (m *mailboxes) retry() {
	m.mu.Lock()
	for _, c := range m.counters {
		c.pause = time.Time{}
	}
	m.mu.Unlock()
	m.retryMailboxes()
}

// recovered: the named source's server is well again. Others are left alone as before.
func (m *mailboxes) recovered(name string) {
	m.mu.Lock()
	for _, c := range m.counters {
		if c.name == name {
			c.pause = time.Time{}
		}
	}
	m.mu.Unlock()
	m.retryMailboxes()
}

// retryMailboxes has the mailboxes that failed asked anew.
func (m *mailboxes) retryMailboxes() {
	now := time.Now()
	m.mu.Lock()
	for _, box := range m.known {
		switch {
		case box.state == beingAsked:
			box.mended = true
		case box.state == isIdle && box.failed > 0:
			box.due = now
			heap.Fix(&m.idle, box.index)
		}
	}
	m.mu.Unlock()
	notify(m.wake)
}

// sooner returns the shorter of two times to wait; 0 is none.
func sooner(wait, other time.Duration) time.Duration {
	if wait == 0 {
		return other
	}
	return min(wait, other)
}
