package relay

import (
	"sync"
	"sync/atomic"
	"time"

	"badgerelay/apns"
)

// Watch follows a mailbox for who traces: it is told what APNs answered to
// pushes of the mailbox, and its name stands as the exemplar of their latency.
type Watch struct {
	// TraceID is the exemplar's. Empty: none.
	TraceID string
	// Answered is called for each answer to a push of the mailbox's count, while
	// that is still to be shown, from a goroutine of the pool. It must not block.
	Answered func(PushAnswer)
}

// PushAnswer is what became of one push of a watched mailbox.
type PushAnswer struct {
	App       string
	WrittenAt time.Time   // when it was handed to the socket; zero: it never was
	Reason    apns.Reason // empty: accepted
}

// watchedAnswer is an answer that a watcher is to be told of.
type watchedAnswer struct {
	watch  *Watch
	answer PushAnswer
}

// watches are the watched mailboxes. While there are none, which is nearly
// always, an answer costs one look at count.
type watches struct {
	count atomic.Int64

	mu        sync.Mutex // guards mailboxes; nothing is locked under it
	mailboxes map[MailboxKey][]*Watch
}

// Watch begins to follow a mailbox; the caller stops it.
func (r *Relay) Watch(key MailboxKey, w *Watch) (stop func()) {
	r.watches.mu.Lock()
	defer r.watches.mu.Unlock()
	if r.watches.mailboxes == nil {
		r.watches.mailboxes = map[MailboxKey][]*Watch{}
	}
	r.watches.mailboxes[key] = append(r.watches.mailboxes[key], w)
	r.watches.count.Add(1)
	return sync.OnceFunc(func() { r.unwatch(key, w) })
}

func (r *Relay) unwatch(key MailboxKey, w *Watch) {
	r.watches.mu.Lock()
	defer r.watches.mu.Unlock()
	var left []*Watch
	for _, other := range r.watches.mailboxes[key] {
		if other != w {
			left = append(left, other)
		}
	}
	r.watches.count.Add(-1)
	if len(left) == 0 {
		delete(r.watches.mailboxes, key)
		return
	}
	r.watches.mailboxes[key] = left
}

// tell has the watchers of a mailbox told once no lock is held, and returns the
// trace of one of them.
func (w *watches) tell(key MailboxKey, app string, res *apns.Result, acts *actions) (traceID string) {
	a := PushAnswer{App: app, WrittenAt: res.WrittenAt}
	if res.Err != nil {
		a.Reason = res.Err.Reason
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, watch := range w.mailboxes[key] {
		acts.answers = append(acts.answers, watchedAnswer{watch, a})
		traceID = watch.TraceID
	}
	return traceID
}

// exemplars are the newest traced latency of each bucket.
type exemplars [buckets]atomic.Pointer[exemplar]

type exemplar struct {
	traceID string
	value   time.Duration
	at      time.Time
}

func (e *exemplars) set(traceID string, ns int64) {
	e[bucketOf(ns)].Store(&exemplar{traceID, time.Duration(ns), time.Now()})
}
