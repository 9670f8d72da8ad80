package dispatch

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"badgerelay/apns"
	"badgerelay/relay/fair"
)

// Owner has the devices, of type D, that a Queue hands out. Its methods are called
// from many goroutines at once, while the Queue holds no lock.
type Owner[D comparable] interface {
	// Begin is called before devices are taken. It says until when their pushes may
	// be handed to the socket; nil: at any time.
	Begin() *apns.Deadline
	// Start fills the push of a device that has been taken from the Queue. It reports
	// false if nothing is to be pushed to the device at present.
	Start(device D, push *apns.Request) bool
	// Answered brings home what APNs answered.
	Answered(results []apns.Result)
}

// Queue is what one app's connections take pushes from. It implements apns.Source.
// It is safe for concurrent use.
type Queue[D comparable] struct {
	owner   Owner[D]
	logger  *slog.Logger
	now     func() int64
	changed func()
	pool    atomic.Pointer[func()] // wakes the app's pool
	resent  atomic.Uint64

	mu      sync.Mutex // guards what follows
	waiting fair.Queue[int64, D]
	breaker breaker
}

// Config is what a Queue needs.
type Config[D comparable] struct {
	Owner  Owner[D]
	Logger *slog.Logger // of the app

	// Now returns the time on the owner's clock, in nanoseconds.
	Now func() int64
	// Random returns a number from 0 to n-1. It is called under the Queue's lock.
	Random func(n int64) int64
	// Changed is called when Tick would name another time.
	Changed func()
}

// NewQueue makes a Queue, which is empty.
func NewQueue[D comparable](c Config[D]) *Queue[D] {
	return &Queue[D]{owner: c.Owner, logger: c.Logger, now: c.Now, changed: c.Changed, breaker: breaker{random: c.Random}}
}

// SetWake says what tells the app's pool that there is work. wake must not block.
func (q *Queue[D]) SetWake(wake func()) { q.pool.Store(&wake) }

// Wake tells the pool that there is work.
func (q *Queue[D]) Wake() {
	if wake := q.pool.Load(); wake != nil {
		(*wake)()
	}
}

// Add puts a device behind those of the organization, or in front of them; once: not
// if it has been put there so before. The caller then calls Wake.
//
// A device may be in the queue for several organizations, and again: Owner.Start
// passes over one that is not to be pushed to.
func (q *Queue[D]) Add(organization int64, device D, front, once bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case once:
		q.waiting.AddOnce(organization, device, front)
	case front:
		q.waiting.AddFirst(organization, device)
	default:
		q.waiting.Add(organization, device)
	}
}

// takeAtOnce is how many devices Take draws under one hold of the lock. Ours: more
// than a connection mostly has room for.
const takeAtOnce = 64

// Take implements apns.Source: it hands out devices with their newest counts.
func (q *Queue[D]) Take(dst []apns.Request) (n, more int) {
	until := q.owner.Begin()
	for {
		var buffer [takeAtOnce]D
		var devices []D
		var grant uint64
		devices, grant, more = q.next(buffer[:0], min(len(dst)-n, takeAtOnce))
		idle := len(devices)
		for _, device := range devices {
			if !q.owner.Start(device, &dst[n]) {
				continue
			}
			if dst[n].Deadline == nil {
				dst[n].Deadline = until
			}
			n++
			idle--
		}
		if idle > 0 {
			q.release(idle, grant) // others take the place of those that have nothing to push any more
		}
		if len(devices) == 0 || n == len(dst) {
			return n, more
		}
	}
}

// next takes up to n devices, as far as the breaker lets them go, and says under which of
// its grants, and how many more may go.
func (q *Queue[D]) next(into []D, n int) (devices []D, grant uint64, more int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, grant = q.breaker.acquire(min(n, q.waiting.Len()))
	return q.waiting.Next(into, n), grant, q.breaker.advertised(q.waiting.Len())
}

// release gives back what the breaker let go for devices that were not pushed to.
func (q *Queue[D]) release(n int, grant uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.breaker.release(n, grant)
}

// Done implements apns.Source: it brings answers home.
func (q *Queue[D]) Done(results []apns.Result) {
	accepted, failed := 0, 0
	for i := range results {
		switch results[i].Err.Verdict() {
		case apns.VerdictRetryLater, apns.VerdictUnknown:
			failed++
		case apns.VerdictResend:
			q.resent.Add(1)
		case apns.VerdictStopApp: // what follows is package apns' matter
		default:
			accepted++ // APNs is alive and talks to us, whatever it said
		}
	}
	q.mu.Lock()
	was := q.breaker.open
	changed := q.breaker.note(accepted, failed, q.now())
	is := q.breaker.open
	q.mu.Unlock()
	switch {
	case is && !was:
		q.logger.Warn("breaker opened: APNs returns errors")
	case was && !is:
		q.logger.Info("breaker closed")
	}
	q.owner.Answered(results)
	if changed {
		q.changed()
		q.Wake()
	}
}

// Tick does what is due at now, and returns when it wants to be called again; 0: not
// before Config.Changed.
func (q *Queue[D]) Tick(now int64) (next int64) {
	q.mu.Lock()
	due, next := q.breaker.tick(now)
	q.mu.Unlock()
	if due {
		q.Wake()
	}
	return next
}

// State is what a Queue holds.
type State struct {
	Waiting      int    // devices
	BreakerOpen  bool   // APNs answers errors: a push goes out now and then
	BreakerSince int64  // when the breaker opened; 0: it is closed
	Resent       uint64 // pushes sent again because APNs may not have processed them
}

// State returns what the Queue holds.
func (q *Queue[D]) State() State {
	q.mu.Lock()
	defer q.mu.Unlock()
	return State{
		Waiting: q.waiting.Len(), BreakerOpen: q.breaker.open, BreakerSince: q.breaker.since, Resent: q.resent.Load(),
	}
}
