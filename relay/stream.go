package relay

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
)

// ErrDraining is returned by Submit and Publish once the relay leaves.
var ErrDraining = errors.New("relay is draining")

// ErrClosed is returned by the methods of a closed Stream.
var ErrClosed = errors.New("stream is closed")

// maxSettled is how many settled events may wait for TakeSettled or Next before Submit blocks.
// It is more than six full batches, so an agent that reads at all is never
// held up, and one that does not costs the relay two megabytes, and a little
// for each of its mailboxes that was pending then.
const maxSettled = 65_536

// Stream is one agent's flow of events and the way back for what became of
// them. Submit and Next may be called from two goroutines at once, each of
// them from one only; Close from any.
type Stream struct {
	relay    *Relay
	org      OrganizationID
	agent    agentHash
	activeAt atomic.Int64 // when it was opened, or active again, on the relay's clock

	// submitting is held while events are handed over, and to close the stream:
	// once it is closed none of its events comes after those of a newer stream.
	// Of the locks that follow it is the first (package documentation, Locks).
	submitting sync.Mutex
	standby    bool // guarded by submitting: it takes no events

	mu      sync.Mutex // a leaf; guards this group
	closed  bool
	settled []settledEvent // not yet taken by Next or TakeSettled, in order of settling
	notable bool           // settled has an outcome that is not routine
	pending *mailbox       // head of the list of mailboxes whose newest event is this stream's
	batches []batch        // batches with unreported events, ascending; owner of through
	empty   int            // how many of batches have nothing unreported left
	last    uint64         // the last sequence number submitted

	// Set before the first Submit.
	onDropped func()                    // nil: nobody
	onSettled func(n int, notable bool) // called in place of filling ready; nil: nobody

	ready signal // settled is not empty, or closed
	space signal // settled was emptied, or closed

	spare []settledEvent // Next's: what settled is swapped with
	acts  actions        // Submit's
}

// settledEvent is how one event of a stream ended.
type settledEvent struct {
	sequence uint64
	outcome  Outcome
	detail   *EventOutcome // nil: the outcome says it all
}

// batch counts what take has not returned of one Submit.
type batch struct {
	first, last uint64
	unreported  int
}

// OpenStream opens a stream of the events of one of org's agents. The caller
// closes it. What is submitted on one of the agent's streams counts as later
// than what was submitted before on any of them, so one at a time takes events.
func (r *Relay) OpenStream(org OrganizationID, agentID string) *Stream {
	s := &Stream{
		relay: r,
		org:   org,
		agent: r.agentHash(agentID),

		ready: newSignal(),
		space: newSignal(),
	}
	s.activeAt.Store(r.now())
	r.openMu.Lock()
	defer r.openMu.Unlock()
	r.open[s] = struct{}{}
	return s
}

// hasStream reports whether an agent of the organization has a stream open.
func (r *Relay) hasStream(org OrganizationID) bool {
	r.openMu.Lock()
	defer r.openMu.Unlock()
	for s := range r.open {
		if s.org == org {
			return true
		}
	}
	return false
}

// OnDropped has fn called when the relay has closed the stream by itself, because
// the process was stopped for so long that what it had is old. It comes before the
// first Submit. fn must not block.
func (s *Stream) OnDropped(fn func()) { s.onDropped = fn }

// SetAgent says whose events they are, where that is known only after the stream
// was opened. It comes before the first Submit.
func (s *Stream) SetAgent(agentID string) { s.agent = s.relay.agentHash(agentID) }

// Standby has the stream take no events, because another process of its agent is
// active: from its return on those that are submitted end as OutcomeStandby. What
// was taken before goes on.
func (s *Stream) Standby() {
	s.submitting.Lock()
	defer s.submitting.Unlock()
	s.standby = true
}

// Activate has the stream take events again.
func (s *Stream) Activate() {
	s.submitting.Lock()
	defer s.submitting.Unlock()
	s.standby = false
	s.activeAt.Store(s.relay.now())
}

// Submit hands events over, the first with sequence number first, from 1 and
// ascending from call to call. Each becomes the newest of its mailbox; one
// that breaks a rule ends as rejected without harm to the others. Submit keeps
// neither the slice nor the strings in it.
//
// It blocks while too many settlements wait for Next, until ctx is done. It
// returns ErrDraining, ErrClosed or ctx's error; then no event was taken.
func (s *Stream) Submit(ctx context.Context, first uint64, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	if err := s.track(ctx, first, len(events)); err != nil {
		return err
	}
	defer s.relay.apply(&s.acts)
	defer s.submitting.Unlock()
	if s.standby {
		s.turnAway(first, len(events))
		return nil
	}
	now := s.relay.instant()
	for i := range events {
		s.relay.accept(s, first+uint64(i), &events[i], now, &s.acts)
	}
	return nil
}

// turnAway ends n events that came while the stream stands by. The caller holds
// submitting.
func (s *Stream) turnAway(first uint64, n int) {
	sh := &s.relay.shards[0] // any
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for i := range uint64(n) {
		sh.counts.accepted++
		s.acts.settled(s, sh.record(OutcomeStandby), first+i, nil)
	}
}

// track waits for room and notes the batch. Without an error it returns with
// submitting held.
func (s *Stream) track(ctx context.Context, first uint64, n int) error {
	for {
		if s.relay.draining.Load() {
			return ErrDraining
		}
		s.submitting.Lock()
		s.mu.Lock()
		switch {
		case s.closed:
			s.mu.Unlock()
			s.submitting.Unlock()
			return ErrClosed
		case len(s.settled) < maxSettled:
			s.last = first + uint64(n) - 1
			s.batches = append(s.batches, batch{first, s.last, n})
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		s.submitting.Unlock()
		select {
		case <-s.space:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ManySettled is how many settled events, not taken yet, make OnSettled's function
// be called once more. Ours: as many as fill a message well.
const ManySettled = 128

// settle notes how an event ended. It returns true if the reader has to be
// woken. The caller holds the lock of the mailbox's shard.
func (s *Stream) settle(e settledEvent) (wake bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = append(s.settled, e)
	notable := !s.notable && !e.outcome.routine()
	s.notable = s.notable || notable
	return notable || len(s.settled) == 1 || len(s.settled) == ManySettled
}

// OnSettled has fn called, in place of waking Next, when an event has settled after all
// before were taken, when ManySettled have, and when the first has whose outcome is
// notable: not delivered, superseded or unchanged. n is how many there are, and notable
// is about all of them. fn must be quick, and may be called from several goroutines.
// OnSettled is called before the first Submit.
func (s *Stream) OnSettled(fn func(n int, notable bool)) { s.onSettled = fn }

// wakeReader tells the reader that there is something to take.
func (s *Stream) wakeReader() {
	if s.onSettled == nil {
		s.ready.fill()
		return
	}
	s.mu.Lock()
	n, notable := len(s.settled), s.notable
	s.mu.Unlock()
	s.onSettled(n, notable)
}

// TakeSettled returns what has settled since the last call, of TakeSettled or
// Next, and false if nothing has.
func (s *Stream) TakeSettled() (Settlement, bool) {
	s.mu.Lock()
	if len(s.settled) == 0 {
		s.mu.Unlock()
		return Settlement{}, false
	}
	settlement := s.take()
	s.mu.Unlock()
	s.space.fill()
	return settlement, true
}

// attach and detach keep the list of mailboxes whose newest event is pending
// and came from this stream. The caller holds the lock of the mailbox's shard.
func (s *Stream) attach(m *mailbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.nextPending, m.prevPending = s.pending, nil
	if s.pending != nil {
		s.pending.prevPending = m
	}
	s.pending = m
}

func (s *Stream) detach(m *mailbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.prevPending != nil {
		m.prevPending.nextPending = m.nextPending
	} else {
		s.pending = m.nextPending
	}
	if m.nextPending != nil {
		m.nextPending.prevPending = m.prevPending
	}
	m.nextPending, m.prevPending = nil, nil
}

// Next waits until something has settled since the last call and returns it.
// It returns ErrClosed when the stream is closed, or ctx's error.
func (s *Stream) Next(ctx context.Context) (Settlement, error) {
	for {
		if settlement, some := s.TakeSettled(); some {
			return settlement, nil
		}
		s.mu.Lock()
		closed := s.closed
		s.mu.Unlock()
		if closed {
			return Settlement{}, ErrClosed
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return Settlement{}, ctx.Err()
		}
	}
}

// take turns what has settled into a Settlement. The caller holds s.mu.
func (s *Stream) take() Settlement {
	events := s.settled
	s.settled, s.spare, s.notable = s.spare[:0], events, false
	slices.SortFunc(events, func(a, b settledEvent) int {
		return cmp.Compare(a.sequence, b.sequence)
	})
	for _, e := range events {
		s.countDown(e.sequence)
	}
	s.dropSettled()

	settlement := Settlement{Through: s.last}
	if len(s.batches) > 0 {
		settlement.Through = s.batches[0].first - 1
	}
	for _, e := range events {
		settlement.add(e)
	}
	return settlement
}

// countDown notes that one event of its batch has settled.
func (s *Stream) countDown(sequence uint64) {
	i, _ := slices.BinarySearchFunc(s.batches, sequence, func(b batch, seq uint64) int {
		return cmp.Compare(b.last, seq)
	})
	if s.batches[i].unreported--; s.batches[i].unreported == 0 {
		s.empty++
	}
}

// dropSettled forgets batches without unreported events: at the front at once,
// in the middle when they are the greater part, so that the cost per batch is
// constant and memory follows the unreported ones.
func (s *Stream) dropSettled() {
	for len(s.batches) > 0 && s.batches[0].unreported == 0 {
		s.batches = s.batches[1:]
		s.empty--
	}
	if s.empty > len(s.batches)/2 {
		s.batches = slices.DeleteFunc(s.batches, func(b batch) bool { return b.unreported == 0 })
		s.empty = 0
	}
}

// add puts one event, above all others there, into the settlement.
func (s *Settlement) add(e settledEvent) {
	if e.sequence > s.Through {
		if n := len(s.Ranges); n > 0 && s.Ranges[n-1].Last+1 == e.sequence {
			s.Ranges[n-1].Last = e.sequence
		} else {
			s.Ranges = append(s.Ranges, Range{e.sequence, e.sequence})
		}
	}
	switch {
	case e.detail != nil:
		s.Outcomes = append(s.Outcomes, *e.detail)
	case e.outcome != OutcomeDelivered:
		s.Outcomes = append(s.Outcomes, EventOutcome{Sequence: e.sequence, Outcome: e.outcome})
	}
}

// Unreported returns how many events of the stream neither TakeSettled nor Next has
// returned: those that are pending, and those that have settled since.
func (s *Stream) Unreported() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unreported()
}

// Pending returns how many events of the stream have not settled. It waits for a Submit
// in progress.
func (s *Stream) Pending() int {
	s.submitting.Lock()
	defer s.submitting.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unreported() - len(s.settled)
}

// unreported counts the events that take has not returned. The caller holds mu.
func (s *Stream) unreported() int {
	n := 0
	for _, b := range s.batches {
		n += b.unreported
	}
	return n
}

// Close ends the stream: what is pending for it ends as abandoned, because the
// agent sends it again on its next stream, maybe to another relay, and an old
// count kept alive here could overtake a newer one there.
func (s *Stream) Close() { s.end(s.relay.abandon) }

// release ends the stream but lets its events go on without it.
func (s *Stream) release() { s.end(s.relay.orphan) }

// end takes each pending mailbox off the stream with f and closes the stream.
func (s *Stream) end(f func(*Stream, *mailbox)) {
	if !s.shut() {
		return
	}
	for {
		s.mu.Lock()
		m := s.pending
		s.mu.Unlock()
		if m == nil {
			break
		}
		f(s, m)
	}
	s.relay.openMu.Lock()
	delete(s.relay.open, s)
	s.relay.openMu.Unlock()
	s.ready.fill()
	s.space.fill()
}

// shut closes the stream to events, once; it reports false if it was.
func (s *Stream) shut() bool {
	s.submitting.Lock()
	defer s.submitting.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.closed
	s.closed = true
	return !was
}

// Publish submits an agent's events and waits until each has settled or ctx is done. The
// outcomes are in the events' order; those that have not settled are pending.
// They go on without the caller, unless there are other relays: by one of
// those a newer count may come, which an older one must not follow. It returns
// ErrDraining and takes nothing once the relay leaves.
func (r *Relay) Publish(ctx context.Context, org OrganizationID, agentID string, events []Event) ([]EventOutcome, error) {
	s := r.OpenStream(org, agentID)
	if r.maxInFlight > 0 {
		defer s.Close()
	} else {
		defer s.release()
	}
	if err := s.Submit(ctx, 1, events); err != nil {
		return nil, err
	}
	outcomes := make([]EventOutcome, len(events))
	for i := range outcomes {
		outcomes[i] = EventOutcome{Sequence: uint64(i) + 1, Outcome: OutcomePending}
	}
	for left := len(events); left > 0; {
		settlement, err := s.Next(ctx)
		if err != nil {
			break // ctx is done: what did not settle in time is pending
		}
		left = settlement.report(outcomes)
	}
	return outcomes, nil
}

// report marks what the settlement says and returns how many are still pending.
func (s *Settlement) report(outcomes []EventOutcome) (pending int) {
	delivered := func(i uint64) {
		if outcomes[i-1].Outcome == OutcomePending {
			outcomes[i-1].Outcome = OutcomeDelivered
		}
	}
	for _, o := range s.Outcomes {
		outcomes[o.Sequence-1] = o
	}
	for i := uint64(1); i <= s.Through; i++ {
		delivered(i)
	}
	for _, g := range s.Ranges {
		for i := g.First; i <= g.Last; i++ {
			delivered(i)
		}
	}
	for i := range outcomes {
		if outcomes[i].Outcome == OutcomePending {
			pending++
		}
	}
	return pending
}

// openStreams returns how many streams are open.
func (r *Relay) openStreams() int {
	r.openMu.Lock()
	defer r.openMu.Unlock()
	return len(r.open)
}
