package agent

import (
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

// Errors of Set.
var (
	// ErrInvalid: the mailbox or the count is outside its bounds.
	ErrInvalid = errors.New("invalid event")
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

// entry is the newest count of one mailbox: unsettled, or settled and held
// because it is uncertain.
type entry struct {
	mailbox    string
	unread     uint32
	epoch      uint64
	version    uint64
	observedAt time.Time
	number     uint64 // the Submitted at which this count was set; waiters compare it

	place    place
	sentOn   *inFlight // where a count of the mailbox is in flight, this one or an older; nil: nowhere
	sequence uint64    // its number there

	settled        bool      // it is held, or sent again, only because it is uncertain
	uncertainUntil time.Time // see uncertain.go; zero: it is certain
	resend         bool      // that time passed while it was in flight
}

// place says where an entry is.
type place uint8

const (
	placeReady     place = iota // in unsettled.ready
	placeFlight                 // in flight on sentOn
	placeBehind                 // waits for an older count that is in flight on a stream that takes no more
	placeUncertain              // settled, and nowhere until it is sent once more
)

// waiter is one WaitSettled in progress.
type waiter struct {
	mark      uint64 // waits for counts numbered up to here
	remaining int
	done      chan struct{}
}

// unsettled is the set of newest unsettled counts. All methods are safe for
// concurrent use; none blocks for more than a few memory operations.
type unsettled struct {
	limit int           // most counts held unsettled
	wake  chan struct{} // one slot: there is something to take

	mu          sync.Mutex // guards what follows, and the fields of every entry and every inFlight
	entries     map[string]*entry
	settled     int      // entries that are
	ready       []*entry // to be sent, in order; head is the first that counts
	head        int
	uncertain   []uncertainty
	begun       bool          // a process has become active
	maxInFlight time.Duration // of the relay that it has met first, or last took over at
	beginsUntil time.Time     // what is sent before is uncertain
	arrivals    arrivals
	ledger      Ledger // Unsettled is filled in by snapshot
	waiters     []*waiter
}

func newUnsettled(limit int) *unsettled {
	return &unsettled{limit: limit, wake: make(chan struct{}, 1), entries: make(map[string]*entry)}
}

// set takes a count, or says why not: ErrInvalid or ErrFull.
func (u *unsettled) set(c Event) error {
	if err := validate(c.Mailbox, c.Unread); err != nil {
		return err
	}
	u.mu.Lock()
	e, known := u.entries[c.Mailbox]
	switch {
	case (!known || e.settled) && u.held() >= u.limit:
		u.mu.Unlock()
		return ErrFull
	case known:
		u.replace(e, &c)
	default:
		u.ledger.Submitted++
		e = &entry{
			mailbox: c.Mailbox, unread: c.Unread, epoch: c.Epoch, version: c.Version, observedAt: c.ObservedAt, number: u.ledger.Submitted,
		}
		u.entries[c.Mailbox] = e
		u.enqueue(e)
	}
	u.mu.Unlock()
	return nil
}

// held returns how many counts are unsettled. The caller holds mu.
func (u *unsettled) held() int { return len(u.entries) - u.settled }

// replace puts a newer count into e, which ends the old one as replaced, if it
// has not settled. The same count and version again is one more submission that
// one which waits stands for, observed when it was seen last. One that is in flight
// does not: the relay may have settled it before the device came for which the mailbox
// was counted anew. The caller holds mu.
func (u *unsettled) replace(e *entry, c *Event) {
	u.ledger.Submitted++
	if e.settled {
		e.settled = false
		u.settled--
	} else {
		u.ledger.Replaced++
		if e.place != placeFlight && e.unread == c.Unread && e.epoch == c.Epoch && e.version == c.Version {
			e.observedAt = c.ObservedAt
			return
		}
		u.gone(e.number)
	}
	e.unread, e.epoch, e.version, e.observedAt, e.number = c.Unread, c.Epoch, c.Version, c.ObservedAt, u.ledger.Submitted
	e.resend = false
	switch e.place {
	case placeUncertain, placeFlight:
		u.enqueue(e)
	case placeReady, placeBehind: // it goes when its turn comes
	}
}

// enqueue has an entry sent, and wakes the sender. The caller holds mu.
func (u *unsettled) enqueue(e *entry) {
	e.place = placeReady
	u.ready = append(u.ready, e)
	notify(u.wake)
}

// readyCount returns how many entries wait to be sent.
func (u *unsettled) readyCount() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.ready) - u.head
}

// take moves up to n ready entries in flight on f and returns them as a batch,
// or nil if there is nothing, or f is closed or stands by. One whose mailbox has a count in
// flight on another stream, whose relay leaves, has to wait for it.
func (u *unsettled) take(f *inFlight, n int, now time.Time) *badgerelayv1.Batch {
	u.mu.Lock()
	defer u.mu.Unlock()
	n = min(n, len(u.ready)-u.head)
	if f.closed || f.standby || n == 0 {
		return nil
	}
	batch := &badgerelayv1.Batch{FirstSequence: f.last + 1, Events: make([]*badgerelayv1.Event, 0, n)}
	events := make([]badgerelayv1.Event, n)
	times := make([]timestamppb.Timestamp, n)
	for ; u.head < len(u.ready) && len(batch.Events) < n; u.head++ {
		e := u.ready[u.head]
		u.ready[u.head] = nil
		if e.sentOn != nil && e.sentOn != f {
			e.place = placeBehind
			continue
		}
		f.last++
		e.place, e.sentOn, e.sequence = placeFlight, f, f.last
		f.bySequence[f.last] = e
		i := len(batch.Events)
		times[i].Seconds, times[i].Nanos = e.observedAt.Unix(), int32(e.observedAt.Nanosecond())
		event := &events[i]
		event.Mailbox, event.UnreadCount, event.Epoch, event.Version = e.mailbox, e.unread, e.epoch, e.version
		event.ObservedAt = &times[i]
		batch.Events = append(batch.Events, event)
	}
	u.compact()
	if len(batch.Events) == 0 {
		return nil
	}
	u.sent(f, f.sentSince(batch.GetFirstSequence()), now)
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

// wait returns a waiter for everything set until now.
func (u *unsettled) wait() *waiter {
	u.mu.Lock()
	defer u.mu.Unlock()
	w := &waiter{mark: u.ledger.Submitted, remaining: u.held(), done: make(chan struct{})}
	if w.remaining == 0 {
		close(w.done)
		return w
	}
	u.waiters = append(u.waiters, w)
	return w
}

// awaited reports whether somebody waits for settlements.
func (u *unsettled) awaited() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.waiters) > 0
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
	l.Unsettled = uint64(u.held())
	return l
}

// pending returns the mailbox's count that has not settled; false: there is none.
func (u *unsettled) pending(mailbox string) (unread uint32, pending bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	e := u.entries[mailbox]
	if e == nil || e.settled {
		return 0, false
	}
	return e.unread, true
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
