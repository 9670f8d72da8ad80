package relay

import (
	"context"
	"sync"
	"time"
)

// windows holds the open coalescing windows. All are equally long, so the
// order of opening is the order of ending, and one timer serves them all.
type windows struct {
	mu      sync.Mutex
	queue   []window
	changed chan struct{} // one slot: a first window opened
}

// window is a mailbox's and when it ends.
type window struct {
	mailbox *mailbox
	endsAt  int64
}

// open adds a window. The caller holds the shard's lock.
func (w *windows) open(m *mailbox, endsAt int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(w.queue, window{m, endsAt})
	if len(w.queue) == 1 {
		notify(w.changed)
	}
}

// due takes the windows that have ended, all of them where drained, and says
// when the next one will; 0: there is none.
func (w *windows) due(now int64, all bool, into []*mailbox) (mailboxes []*mailbox, next int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for n < len(w.queue) && (all || w.queue[n].endsAt <= now) {
		into = append(into, w.queue[n].mailbox)
		n++
	}
	clear(w.queue[:n])
	w.queue = w.queue[n:]
	if len(w.queue) > 0 {
		next = w.queue[0].endsAt
	}
	return into, next
}

// run ends windows when their time has come, until ctx is done.
func (w *windows) run(ctx context.Context, r *Relay) {
	var fx effects
	var mailboxes []*mailbox
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := r.now()
		var next int64
		mailboxes, next = w.due(now, r.draining.Load(), mailboxes[:0])
		for _, m := range mailboxes {
			r.endWindow(m, now, &fx)
		}
		clear(mailboxes)
		r.apply(&fx)
		resetTimer(timer, now, next)
		select {
		case <-timer.C:
		case <-w.changed:
		case <-ctx.Done():
			return
		}
	}
}
