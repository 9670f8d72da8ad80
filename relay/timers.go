package relay

import (
	"context"
	"sync"
	"time"
)

// windows holds the open coalescing windows. All are equally long, so the order of
// opening is the order of ending, and none ends early: a queue does. dispatch.Timers, which
// devices wait in, would do as well, but is a heap, as their times are moved and ended; it
// costs an allocation for each that is added, and there is a window for nearly each event.
type windows struct {
	mu    sync.Mutex // a leaf; guards queue
	queue []window
}

// window is a mailbox's and when it ends.
type window struct {
	mailbox *mailbox
	endsAt  int64
}

// open adds a window, and reports whether it is the first one to end. The caller
// holds the shard's lock.
func (w *windows) open(m *mailbox, endsAt int64) (first bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(w.queue, window{m, endsAt})
	return len(w.queue) == 1
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

// runTimers does what is due until ctx is done: it ends coalescing windows, lets
// devices go on that waited for a time, and breakers let pushes through.
func (r *Relay) runTimers(ctx context.Context) {
	var acts actions
	var mailboxes []*mailbox
	var devices []*device
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := r.now()
		var windowEnds, waitEnds int64
		mailboxes, windowEnds = r.windows.due(now, r.draining.Load(), mailboxes[:0])
		for _, m := range mailboxes {
			r.endWindow(m, now, &acts)
		}
		devices, waitEnds = r.waits.Due(now, devices[:0])
		for _, d := range devices {
			d.endWait(now, r, &acts)
		}
		next := earlier(windowEnds, waitEnds)
		for _, a := range r.apps.all() {
			next = earlier(next, a.queue.Tick(now))
		}
		clear(mailboxes)
		clear(devices)
		r.apply(&acts)
		if timer.Stop(); next != 0 {
			timer.Reset(time.Duration(next - now))
		}
		select {
		case <-timer.C:
		case <-r.timersChanged:
		case <-ctx.Done():
			return
		}
	}
}

// earlier returns the earlier of two times; 0 is none.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// endSharedWindows lets shared devices go that wait for the end of their window
// alone.
func (r *Relay) endSharedWindows() {
	for _, d := range r.waits.All() {
		d.mu.Lock()
		if d.stage == stageWaiting && d.shared != nil {
			r.waits.Set(d, d.waitUntil())
		}
		d.mu.Unlock()
	}
}

// signal is a channel of one slot, which is filled where something has happened.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

// fill fills the slot.
func (s signal) fill() {
	select {
	case s <- struct{}{}:
	default:
	}
}
