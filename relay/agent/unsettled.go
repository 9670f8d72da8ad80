package agent

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// Bounds of an event (proto/badgerelay/v1/relay.proto, message Event).
const (
	MaxMailboxBytes = 256
	MaxUnread       = 1<<31 - 1
)

// versionMemory is how long a held version makes an older one stale. The
// relay forgets a version after the same time, so that a restored mailbox
// whose numbers went back cannot leave a badge wrong for longer.
const versionMemory = 10 * time.Minute

// Errors of Set.
var (
	// ErrInvalid: the mailbox or the count is outside its bounds.
	ErrInvalid = errors.New("invalid event")
	// ErrStale: a count with a newer version of the same mailbox is held.
	ErrStale = errors.New("a newer version of the mailbox is held")
	// ErrFull: as many mailboxes as allowed are unsettled and this is another one.
	ErrFull = errors.New("too many unsettled mailboxes")
)

// Ledger counts the events of an Agent since New. At every moment
// Submitted = sum of Outcomes + Replaced + Unsettled.
type Ledger struct {
	Submitted uint64           // accepted by Set
	Replaced  uint64           // a newer Set of the mailbox came before they had settled
	Unsettled uint64           // held now
	Outcomes  [outcomes]uint64 // settled, by Outcome
}

// Settled returns how many events an outcome has settled.
func (l Ledger) Settled() uint64 {
	var n uint64
	for _, o := range l.Outcomes {
		n += o
	}
	return n
}

// entry is the newest unsettled count of one mailbox. It is in exactly one of
// two places: in unsettled.ready, or in flight on sentOn under sequence.
type entry struct {
	mailbox    string
	unread     uint32
	epoch      uint64
	version    uint64
	observedAt time.Time
	number     uint64 // the Submitted at which this count was set; waiters compare it

	sentOn   *lane // nil: in ready
	sequence uint64
}

// lane is one stream's part of the set: what was sent on it and has neither
// settled nor been replaced. Guarded by unsettled.mu.
type lane struct {
	last     uint64            // the last sequence number sent
	through  uint64            // everything up to here has been looked at
	inFlight map[uint64]*entry // by sequence number
	closed   bool              // takes nothing any more
}

// waiter is one WaitSettled in progress.
type waiter struct {
	mark      uint64 // waits for counts numbered up to here
	remaining int
	done      chan struct{}
}

// unsettled is the set of newest unsettled counts. All methods are safe for
// concurrent use; none blocks for more than a few memory operations.
type unsettled struct {
	limit int           // most mailboxes held
	wake  chan struct{} // one slot: there is something to take

	mu      sync.Mutex // guards everything below and every lane and entry
	entries map[string]*entry
	ready   []*entry // to be sent, in order; head is the first that counts
	head    int
	ledger  Ledger // Unsettled is filled in by snapshot
	waiters []*waiter
}

func newUnsettled(limit int) *unsettled {
	return &unsettled{limit: limit, wake: make(chan struct{}, 1), entries: make(map[string]*entry)}
}

// set takes a count, or says why not: ErrInvalid, ErrStale or ErrFull.
func (u *unsettled) set(mailbox string, unread uint32, epoch, version uint64, now time.Time) error {
	if err := validate(mailbox, unread); err != nil {
		return err
	}
	u.mu.Lock()
	e, known := u.entries[mailbox]
	switch {
	case known && e.newerThan(epoch, version, now):
		u.mu.Unlock()
		return ErrStale
	case known:
		u.replace(e, unread, epoch, version, now)
	case len(u.entries) >= u.limit:
		u.mu.Unlock()
		return ErrFull
	default:
		u.ledger.Submitted++
		e = &entry{mailbox: mailbox, unread: unread, epoch: epoch, version: version, observedAt: now, number: u.ledger.Submitted}
		u.entries[mailbox] = e
		u.ready = append(u.ready, e)
	}
	u.mu.Unlock()
	notify(u.wake)
	return nil
}

// replace puts a newer count into e, which ends the old one as replaced. The
// same count and version again is one more submission that the held one stands
// for: it need not be sent again. The caller holds mu.
func (u *unsettled) replace(e *entry, unread uint32, epoch, version uint64, now time.Time) {
	u.ledger.Submitted++
	u.ledger.Replaced++
	if e.unread == unread && e.epoch == epoch && e.version == version {
		return
	}
	u.gone(e.number)
	e.unread, e.epoch, e.version, e.observedAt, e.number = unread, epoch, version, now, u.ledger.Submitted
	if e.sentOn == nil {
		return
	}
	delete(e.sentOn.inFlight, e.sequence)
	e.sentOn = nil
	u.ready = append(u.ready, e)
}

// newerThan says whether e makes an event with this epoch and version stale.
func (e *entry) newerThan(epoch, version uint64, now time.Time) bool {
	if epoch == 0 && version == 0 || now.Sub(e.observedAt) >= versionMemory {
		return false
	}
	return cmp.Or(cmp.Compare(e.epoch, epoch), cmp.Compare(e.version, version)) > 0
}

// readyCount returns how many entries wait to be sent.
func (u *unsettled) readyCount() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.ready) - u.head
}

// take moves up to n ready entries in flight on l and returns them as a batch,
// or nil if there is nothing or l is closed.
func (u *unsettled) take(l *lane, n int) *badgerelayv1.Batch {
	u.mu.Lock()
	defer u.mu.Unlock()
	n = min(n, len(u.ready)-u.head)
	if l.closed || n == 0 {
		return nil
	}
	batch := &badgerelayv1.Batch{FirstSequence: l.last + 1, Events: make([]*badgerelayv1.Event, n)}
	events := make([]badgerelayv1.Event, n)
	times := make([]timestamppb.Timestamp, n)
	for i, e := range u.ready[u.head : u.head+n] {
		l.last++
		e.sentOn, e.sequence = l, l.last
		l.inFlight[l.last] = e
		times[i].Seconds, times[i].Nanos = e.observedAt.Unix(), int32(e.observedAt.Nanosecond())
		event := &events[i]
		event.Mailbox, event.UnreadCount, event.Epoch, event.Version = e.mailbox, e.unread, e.epoch, e.version
		event.ObservedAt = &times[i]
		batch.Events[i] = event
		u.ready[u.head+i] = nil
	}
	u.head += n
	u.compact()
	return batch
}

// compact keeps the ready queue no longer than twice what it holds.
func (u *unsettled) compact() {
	if u.head*2 < len(u.ready) {
		return
	}
	n := copy(u.ready, u.ready[u.head:])
	clear(u.ready[n:])
	u.ready, u.head = u.ready[:n], 0
}

// settle applies a settlement that came on l. It returns the results of those
// counts that it settled, and an error if it speaks of what was never sent.
// A count that was replaced meanwhile is no longer in flight: its settlement
// says nothing about the newer one.
func (u *unsettled) settle(l *lane, s *badgerelayv1.Settlement, now time.Time) ([]Result, []time.Duration, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := l.check(s); err != nil {
		return nil, nil, err
	}
	t := settling{outcomes: s.GetOutcomes(), now: now}
	if s.GetThrough() > l.through {
		u.settleRange(l, &t, l.through+1, s.GetThrough())
		l.through = s.GetThrough()
	}
	for _, r := range s.GetRanges() {
		u.settleRange(l, &t, r.GetFirst(), r.GetLast())
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
func (l *lane) check(s *badgerelayv1.Settlement) error {
	if s.GetThrough() > l.last {
		return fmt.Errorf("settlement through %d, but %d was the last sequence number sent", s.GetThrough(), l.last)
	}
	at := s.GetThrough()
	for _, r := range s.GetRanges() {
		if r.GetFirst() <= at || r.GetFirst() > r.GetLast() || r.GetLast() > l.last {
			return fmt.Errorf("settlement of %d to %d after %d, and %d were sent", r.GetFirst(), r.GetLast(), at, l.last)
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

func (u *unsettled) settleRange(l *lane, t *settling, first, last uint64) {
	for sequence := first; sequence <= last; sequence++ {
		e := l.inFlight[sequence]
		if e == nil {
			continue // replaced meanwhile, or settled before
		}
		result := Result{Mailbox: e.mailbox, Unread: e.unread, Epoch: e.epoch, Version: e.version, Outcome: OutcomeDelivered}
		if o := t.outcome(sequence); o != nil {
			result.describe(o)
		}
		t.results = append(t.results, result)
		t.ages = append(t.ages, t.now.Sub(e.observedAt))
		u.ledger.Outcomes[result.Outcome]++
		delete(l.inFlight, sequence)
		delete(u.entries, e.mailbox)
		u.gone(e.number)
	}
}

// close stops l from taking more.
func (u *unsettled) close(l *lane) {
	u.mu.Lock()
	l.closed = true
	u.mu.Unlock()
	// Whoever shares the wake-up slot must look again: the slot may have been
	// emptied by the sender of this lane.
	notify(u.wake)
}

// release closes l and puts what is in flight on it back, in the order in
// which it was sent. It returns how many there were.
func (u *unsettled) release(l *lane) int {
	u.mu.Lock()
	l.closed = true
	back := make([]*entry, 0, len(l.inFlight))
	for _, e := range l.inFlight {
		back = append(back, e)
	}
	slices.SortFunc(back, func(a, b *entry) int { return cmp.Compare(a.sequence, b.sequence) })
	for _, e := range back {
		e.sentOn, e.sequence = nil, 0
	}
	u.ready = append(u.ready, back...)
	l.inFlight = nil
	u.mu.Unlock()
	notify(u.wake)
	return len(back)
}

// inFlight returns how many counts wait for a settlement on l.
func (u *unsettled) inFlight(l *lane) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(l.inFlight)
}

// wait returns a waiter for everything set until now.
func (u *unsettled) wait() *waiter {
	u.mu.Lock()
	defer u.mu.Unlock()
	w := &waiter{mark: u.ledger.Submitted, remaining: len(u.entries), done: make(chan struct{})}
	if w.remaining == 0 {
		close(w.done)
		return w
	}
	u.waiters = append(u.waiters, w)
	return w
}

// forget drops a waiter whose caller has left.
func (u *unsettled) forget(w *waiter) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.waiters = slices.DeleteFunc(u.waiters, func(o *waiter) bool { return o == w })
}

// gone tells the waiters that the count with this number has settled or was
// replaced. The caller holds mu.
func (u *unsettled) gone(number uint64) {
	if len(u.waiters) == 0 {
		return
	}
	u.waiters = slices.DeleteFunc(u.waiters, func(w *waiter) bool {
		if number > w.mark {
			return false
		}
		if w.remaining--; w.remaining > 0 {
			return false
		}
		close(w.done)
		return true
	})
}

func (u *unsettled) snapshot() Ledger {
	u.mu.Lock()
	defer u.mu.Unlock()
	l := u.ledger
	l.Unsettled = uint64(len(u.entries))
	return l
}

func validate(mailbox string, unread uint32) error {
	switch {
	case mailbox == "" || len(mailbox) > MaxMailboxBytes:
		return fmt.Errorf("%w: mailbox name of %d bytes, want 1 to %d", ErrInvalid, len(mailbox), MaxMailboxBytes)
	case !utf8.ValidString(mailbox):
		return fmt.Errorf("%w: mailbox name is not UTF-8", ErrInvalid)
	case unread > MaxUnread:
		return fmt.Errorf("%w: unread count %d above %d", ErrInvalid, unread, MaxUnread)
	}
	return nil
}

// notify fills a one-slot channel.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
