package dispatch

import (
	"container/heap"
	"sync"
)

// Timer is a device's place among Timers, which is a part of the device. The zero
// value waits for nothing.
type Timer struct{ index int32 } // in Timers.queue, from 1; Timers.mu guards it

// Timed is a device with a Timer.
type Timed interface {
	comparable
	Timer() *Timer
}

// Timers holds the devices that wait for a time, each at most once. It is safe for
// concurrent use.
type Timers[D Timed] struct {
	mu      sync.Mutex // guards queue
	queue   timerQueue[D]
	changed func()
}

// timer is a device and when it may go on.
type timer[D Timed] struct {
	device D
	at     int64
}

// NewTimers makes an empty Timers. changed is called when another time is the
// earliest.
func NewTimers[D Timed](changed func()) *Timers[D] { return &Timers[D]{changed: changed} }

// Set makes a device wait until at, instead of until when it waited before.
func (t *Timers[D]) Set(device D, at int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := device.Timer().index; i > 0 {
		t.queue[i-1].at = at
		heap.Fix(&t.queue, int(i-1))
	} else {
		heap.Push(&t.queue, timer[D]{device, at})
	}
	if t.queue[0].device == device {
		t.changed()
	}
}

// Remove ends a device's wait, if it waits.
func (t *Timers[D]) Remove(device D) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := device.Timer().index; i > 0 {
		heap.Remove(&t.queue, int(i-1))
	}
}

// Due takes the devices whose time has come and appends them to into. It says when
// the next one's will; 0: none waits.
func (t *Timers[D]) Due(now int64, into []D) (devices []D, next int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.queue) > 0 && t.queue[0].at <= now {
		into = append(into, heap.Pop(&t.queue).(timer[D]).device)
	}
	if len(t.queue) > 0 {
		next = t.queue[0].at
	}
	return into, next
}

// All returns the devices that wait, in no order.
func (t *Timers[D]) All() []D {
	t.mu.Lock()
	defer t.mu.Unlock()
	devices := make([]D, len(t.queue))
	for i := range t.queue {
		devices[i] = t.queue[i].device
	}
	return devices
}

// Len returns how many devices wait.
func (t *Timers[D]) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.queue)
}

// timerQueue implements heap.Interface, earliest first.
type timerQueue[D Timed] []timer[D]

func (q timerQueue[D]) Len() int           { return len(q) }
func (q timerQueue[D]) Less(i, j int) bool { return q[i].at < q[j].at }

func (q timerQueue[D]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].device.Timer().index, q[j].device.Timer().index = int32(i+1), int32(j+1)
}

func (q *timerQueue[D]) Push(x any) {
	t := x.(timer[D])
	*q = append(*q, t)
	t.device.Timer().index = int32(len(*q))
}

func (q *timerQueue[D]) Pop() any {
	last := len(*q) - 1
	t := (*q)[last]
	(*q)[last] = timer[D]{}
	*q = (*q)[:last]
	t.device.Timer().index = 0
	return t
}
