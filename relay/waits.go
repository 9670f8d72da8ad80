package relay

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// waits holds the devices that wait for a time, each at most once.
type waits struct {
	mu      sync.Mutex
	queue   waitQueue
	changed chan struct{} // one slot: the earliest time is another
}

// waiter is a device and when it may go on. The time is kept here because the
// heap may not take the device's lock.
type waiter struct {
	device *device
	at     int64
}

// set makes the device wait until at, instead of until when it waited before.
// The caller holds the device's lock.
func (w *waits) set(d *device, at int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d.waitIndex > 0 {
		w.queue[d.waitIndex-1].at = at
		heap.Fix(&w.queue, int(d.waitIndex-1))
	} else {
		heap.Push(&w.queue, waiter{d, at})
	}
	if w.queue[0].device == d {
		notify(w.changed)
	}
}

// remove ends the device's wait. The caller holds the device's lock.
func (w *waits) remove(d *device) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d.waitIndex > 0 {
		heap.Remove(&w.queue, int(d.waitIndex-1))
	}
}

// endWindows lets shared devices go that wait for the end of their window alone.
func (w *waits) endWindows() {
	w.mu.Lock()
	devices := make([]*device, len(w.queue))
	for i := range w.queue {
		devices[i] = w.queue[i].device
	}
	w.mu.Unlock()
	for _, d := range devices {
		d.mu.Lock()
		if d.stage == stageWaiting && d.shared != nil {
			w.set(d, d.waitUntil())
		}
		d.mu.Unlock()
	}
}

// due takes the devices whose time has come, and says when the next one's will;
// 0: there is none.
func (w *waits) due(now int64, into []*device) (devices []*device, next int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) > 0 && w.queue[0].at <= now {
		into = append(into, heap.Pop(&w.queue).(waiter).device)
	}
	if len(w.queue) > 0 {
		next = w.queue[0].at
	}
	return into, next
}

// run lets devices go on when their time has come, until ctx is done.
func (w *waits) run(ctx context.Context, r *Relay) {
	var fx effects
	var devices []*device
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := r.now()
		var next int64
		devices, next = w.due(now, devices[:0])
		for _, d := range devices {
			d.wake(now, r, &fx)
		}
		clear(devices)
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

// wake ends a device's wait, if it still waits.
func (d *device) wake(now int64, r *Relay, fx *effects) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stage != stageWaiting {
		return
	}
	d.stage = stageIdle
	if !d.wanted() {
		d.addTrials(now, fx)
	}
	d.goOn(false, now, r, fx)
}

// resetTimer sets the timer to the relay's time next; 0 stops it.
func resetTimer(timer *time.Timer, now, next int64) {
	if next == 0 {
		timer.Stop()
		return
	}
	timer.Reset(time.Duration(next - now))
}

// waitQueue implements heap.Interface, earliest first.
type waitQueue []waiter

func (q waitQueue) Len() int           { return len(q) }
func (q waitQueue) Less(i, j int) bool { return q[i].at < q[j].at }

func (q waitQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].device.waitIndex, q[j].device.waitIndex = int32(i+1), int32(j+1)
}

func (q *waitQueue) Push(x any) {
	w := x.(waiter)
	*q = append(*q, w)
	w.device.waitIndex = int32(len(*q))
}

func (q *waitQueue) Pop() any {
	last := len(*q) - 1
	w := (*q)[last]
	(*q)[last] = waiter{}
	*q = (*q)[:last]
	w.device.waitIndex = 0
	return w
}
