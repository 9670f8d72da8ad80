package agent

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"
)

// inFlight is one stream's part of the set: what was sent on it and has not
// settled, what was replaced since included. Guarded by unsettled.mu.
type inFlight struct {
	last       uint64 // the last sequence number sent
	through    uint64 // everything up to here has been looked at
	bySequence map[uint64]*entry
	closed     bool // takes nothing any more
	standby    bool // takes nothing until its process is active

	// How long after the stream's end what is in flight on it may still reach a
	// device, as the relay said. Set before the first count is sent.
	maxInFlight time.Duration
}

// settle applies a settlement that came on f. It returns the results of those
// counts that it settled, and an error if it speaks of what was never sent.
// A count that was replaced meanwhile has no result: its settlement says nothing
// about the newer one.
func (u *unsettled) settle(f *inFlight, s *badgerelayv1.Settlement, now time.Time) ([]Result, []time.Duration, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := f.check(s); err != nil {
		return nil, nil, err
	}
	t := settling{outcomes: s.GetOutcomes(), now: now}
	if s.GetThrough() > f.through {
		u.settleRange(f, &t, f.through+1, s.GetThrough())
		f.through = s.GetThrough()
	}
	for _, r := range s.GetRanges() {
		u.settleRange(f, &t, r.GetFirst(), r.GetLast())
	}
	return t.results, t.ages, nil
}

// settling is what one settlement brings, in ascending order of sequence.
type settling struct {
	outcomes []*badgerelayv1.EventOutcome // those not looked at yet
	now      time.Time
	results  []Result
	ages     []time.Duration // since Set, one for each result
}

// outcome returns what the settlement says about sequence, nil for nothing.
func (t *settling) outcome(sequence uint64) *badgerelayv1.EventOutcome {
	for len(t.outcomes) > 0 && t.outcomes[0].GetSequence() < sequence {
		t.outcomes = t.outcomes[1:]
	}
	if len(t.outcomes) == 0 || t.outcomes[0].GetSequence() != sequence {
		return nil
	}
	return t.outcomes[0]
}

// check refuses a settlement of sequence numbers that were never sent, and one
// out of order, whose outcomes would be read as delivered.
func (f *inFlight) check(s *badgerelayv1.Settlement) error {
	if s.GetThrough() > f.last {
		return fmt.Errorf("settlement through %d, but %d was the last sequence number sent", s.GetThrough(), f.last)
	}
	at := s.GetThrough()
	for _, r := range s.GetRanges() {
		if r.GetFirst() <= at || r.GetFirst() > r.GetLast() || r.GetLast() > f.last {
			return fmt.Errorf("settlement of %d to %d after %d, and %d were sent", r.GetFirst(), r.GetLast(), at, f.last)
		}
		at = r.GetLast()
	}
	at = 0
	for _, o := range s.GetOutcomes() {
		if o.GetSequence() <= at {
			return fmt.Errorf("outcome of %d after that of %d", o.GetSequence(), at)
		}
		at = o.GetSequence()
	}
	return nil
}

func (u *unsettled) settleRange(f *inFlight, t *settling, first, last uint64) {
	for sequence := first; sequence <= last; sequence++ {
		e := f.bySequence[sequence]
		if e == nil {
			continue // settled before
		}
		delete(f.bySequence, sequence)
		if e.sentOn != f || e.sequence != sequence {
			continue // a newer count of the mailbox was sent after it
		}
		e.sentOn, e.sequence = nil, 0
		switch e.place {
		case placeBehind:
			u.enqueue(e)
		case placeFlight:
			if o := t.outcome(sequence); o.GetOutcome() == badgerelayv1.Outcome_OUTCOME_STANDBY {
				u.enqueue(e) // takeOver lets it go, unless it has done so already
				continue
			}
			u.settleEntry(e, t, sequence)
		case placeReady, placeUncertain: // what settled was replaced meanwhile
		}
	}
}

// settleEntry ends the newest count of a mailbox. The caller holds mu.
func (u *unsettled) settleEntry(e *entry, t *settling, sequence uint64) {
	if !e.settled {
		result := Result{Mailbox: e.mailbox, Unread: e.unread, Epoch: e.epoch, Version: e.version, Outcome: OutcomeDelivered}
		if o := t.outcome(sequence); o != nil {
			result.describe(o)
		}
		t.results = append(t.results, result)
		t.ages = append(t.ages, t.now.Sub(e.observedAt))
		u.ledger.Outcomes[result.Outcome]++
		u.gone(e.number)
		e.settled = true
		u.settled++
	}
	switch {
	case e.resend:
		e.resend = false
		u.enqueue(e)
	case !e.uncertainUntil.IsZero():
		e.place = placeUncertain
	default:
		delete(u.entries, e.mailbox)
		u.settled--
	}
}

// sentSince returns the entries that are in flight with a sequence number from
// first on.
func (f *inFlight) sentSince(first uint64) (entries []*entry) {
	for sequence := first; sequence <= f.last; sequence++ {
		entries = append(entries, f.bySequence[sequence])
	}
	return entries
}

// stand stops f from taking more until takeOver.
func (u *unsettled) stand(f *inFlight) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f.standby = true
	u.dropSettled()
}

// takeOver lets f take what is unsettled: another process was active, and is gone.
func (u *unsettled) takeOver(f *inFlight, now time.Time) {
	u.begin(f.maxInFlight, now)
	u.mu.Lock()
	f.standby = false
	u.mu.Unlock()
	notify(u.wake)
}

// close stops f from taking more.
func (u *unsettled) close(f *inFlight) {
	u.mu.Lock()
	f.closed = true
	u.mu.Unlock()
	// Whoever shares the wake-up slot must look again: the slot may have been
	// emptied by the sender of this stream.
	notify(u.wake)
}

// release closes f, whose stream has ended, and puts what is in flight on it
// back, in the order in which it was sent. It returns how many there were.
//
// The relay may not know yet that the stream has ended, and may go on with these
// mailboxes for its maxInFlight: until then they are uncertain.
func (u *unsettled) release(f *inFlight, now time.Time) int {
	u.mu.Lock()
	f.closed = true
	var back []*entry
	for sequence, e := range f.bySequence {
		if e.sentOn == f && e.sequence == sequence {
			back = append(back, e)
		}
	}
	slices.SortFunc(back, func(a, b *entry) int { return cmp.Compare(a.sequence, b.sequence) })
	for _, e := range back {
		e.sentOn, e.sequence, e.resend = nil, 0, false
		if e.place != placeReady {
			u.enqueue(e)
		}
	}
	f.bySequence = nil
	if f.maxInFlight > 0 {
		u.markUncertain(back, now.Add(f.maxInFlight))
	}
	u.mu.Unlock()
	notify(u.wake)
	return len(back)
}

// inFlightCount returns how many counts wait for a settlement on f.
func (u *unsettled) inFlightCount(f *inFlight) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(f.bySequence)
}
