package daemon

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// mailbox is one that has a device. It belongs to mailboxes.mu.
type mailbox struct {
	name   string
	state  state
	again  bool      // it changed while it was asked
	full   bool      // its count did not fit
	gone   bool      // not told since the watch began anew
	failed int       // times in a row that there was no count
	held   bool      // at rest, and not asked before due whatever happens
	due    time.Time // at rest: when it is asked again
	index  int       // in resting
}

// state is what a mailbox waits for.
type state uint8

const (
	unknown state = iota // it has no device
	atRest               // in resting, until it is due
	inPatient
	inUrgent
	beingAsked
)

// How long a mailbox rests, at most; half of it at least. Ours.
const (
	// recount is for one that was counted: a change that nobody told is found
	// then, and a hundred thousand mailboxes are some ten counts a second.
	recount = 6 * time.Hour
	// fullPause is for one whose count did not fit.
	fullPause = time.Minute
	// Where the mail server refuses it, doubled from the first to the last: no
	// protection against attacks minds.
	refusedMin = 10 * time.Second
	refusedMax = 30 * time.Minute
)

// enqueue puts a mailbox into a queue, or has it asked again after the count
// that is under way. The caller holds mu.
func (m *mailboxes) enqueue(box *mailbox, urgent bool) {
	switch {
	case box.state == beingAsked:
		box.again = true
	case box.state == atRest && box.held:
		// It is asked soon enough, and could not be just now.
	case urgent && box.state != inUrgent:
		m.move(box, inUrgent) // its place in patient is skipped
	case box.state < inPatient:
		m.move(box, inPatient)
	}
}

// move takes a mailbox to another state, or to its new place in resting. The
// caller holds mu.
func (m *mailboxes) move(box *mailbox, to state) {
	switch {
	case box.state == atRest:
		heap.Remove(&m.resting, box.index)
	case box.state > atRest:
		m.waiting--
	}
	if to > atRest {
		m.waiting++
	}
	box.state = to
	switch to {
	case atRest:
		heap.Push(&m.resting, box)
	case inPatient:
		m.patient.push(box)
	case inUrgent:
		m.urgent.push(box)
	}
}

// rest has a mailbox asked again after some time, d at most. The caller holds mu.
func (m *mailboxes) rest(box *mailbox, now time.Time, d time.Duration) {
	box.due = now.Add(jitter(d))
	m.move(box, atRest)
}

// rouse queues those that have rested. The caller holds mu.
func (m *mailboxes) rouse(now time.Time) {
	for len(m.resting) > 0 && !m.resting[0].due.After(now) {
		box := m.resting[0]
		to := inPatient
		if box.held {
			to = inUrgent // it is late already
		}
		m.move(box, to)
	}
}

// take returns the next mailbox to ask; nil: none is due within wait, or, where
// wait is 0, until wake.
func (m *mailboxes) take(now time.Time) (box *mailbox, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.Before(m.pause) {
		return nil, m.pause.Sub(now)
	}
	m.rouse(now)
	if len(m.resting) > 0 {
		wait = m.resting[0].due.Sub(now)
	}
	box = m.urgent.pop(inUrgent)
	if box == nil && m.patient.peek(inPatient) != nil {
		if now.Before(m.patience) {
			return nil, sooner(wait, m.patience.Sub(now))
		}
		m.patience = now.Add(m.interval)
		box = m.patient.pop(inPatient)
	}
	if box == nil {
		return nil, wait
	}
	m.move(box, beingAsked)
	notify(m.wake) // there may be more, for another worker
	return box, 0
}

// asked takes a mailbox back from a worker, who looks for the next then. It says
// whether this is the mailbox's first failure in a row.
func (m *mailboxes) asked(box *mailbox, now time.Time, result asked) (first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if box.state != beingAsked {
		return false // no device is left
	}
	again, full, failed := box.again, box.full, box.failed
	box.again, box.full, box.held, box.failed = false, false, result == askedUnavailable, failed+1
	if result == askedCounted {
		box.failed = 0
	}
	switch {
	case box.held:
		m.rest(box, now, min(askPauseMin<<min(failed, 10), askPauseMax))
	case again:
		m.move(box, inUrgent)
	case result == askedRefused:
		m.rest(box, now, min(refusedMin<<min(failed, 10), refusedMax))
	case full:
		m.rest(box, now, fullPause)
	default:
		m.rest(box, now, recount)
	}
	return box.failed == 1
}

// full: a count of the mailbox did not fit.
func (m *mailboxes) full(name string, now time.Time) {
	m.mu.Lock()
	box := m.known[name]
	switch {
	case box == nil: // it is asked when the relay has told it
	case box.state == beingAsked:
		box.full = true
	case box.state == atRest && box.due.After(now.Add(fullPause)):
		m.rest(box, now, fullPause)
	}
	m.mu.Unlock()
	notify(m.wake)
}

// retry has those that failed asked anew: what they failed of may be mended.
func (m *mailboxes) retry() {
	now := time.Now()
	m.mu.Lock()
	for _, box := range m.known {
		switch {
		case box.state == beingAsked:
			box.again = true
		case box.state == atRest && box.failed > 0:
			box.due = now
			heap.Fix(&m.resting, box.index)
		}
	}
	m.mu.Unlock()
	notify(m.wake)
}

// jitter returns between half of d and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2) }

// sooner returns the shorter of two times to wait; 0 is none.
func sooner(wait, other time.Duration) time.Duration {
	if wait == 0 {
		return other
	}
	return min(wait, other)
}
