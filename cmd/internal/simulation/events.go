package simulation

import (
	"container/heap"
	"sync"
	"testing/synctest"
	"time"
)

// events is what is going to happen, in the order of time. Everything that the
// world does to its programs goes through it, one at a time: the next begins
// when every goroutine waits for something.
type events struct {
	mu    sync.Mutex // guards what follows; a leaf
	queue eventQueue
	last  uint64
	wake  chan struct{} // one slot: something came that is earlier than all else
}

type event struct {
	at     time.Time
	number uint64 // decides between two of the same time
	do     func()
}

func newEvents() *events { return &events{wake: make(chan struct{}, 1)} }

// at has do called at a time, from the goroutine that drives. It must not block.
func (e *events) at(t time.Time, do func()) {
	e.mu.Lock()
	e.last++
	heap.Push(&e.queue, event{t, e.last, do})
	first := e.queue[0].number == e.last
	e.mu.Unlock()
	if first {
		select {
		case e.wake <- struct{}{}:
		default:
		}
	}
}

// after has do called after a time.
func (e *events) after(d time.Duration, do func()) { e.at(time.Now().Add(d), do) }

// drive has everything happen until a time. It belongs to the bubble's first
// goroutine.
func (e *events) drive(until time.Time) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		synctest.Wait()
		do, wait := e.next(time.Now(), until)
		switch {
		case do != nil:
			do()
			continue
		case wait <= 0:
			return
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-e.wake:
		}
	}
}

// next returns what is due, or how long nothing is; 0: until has come.
func (e *events) next(now, until time.Time) (do func(), wait time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) > 0 && !e.queue[0].at.After(now) {
		return heap.Pop(&e.queue).(event).do, 0
	}
	if len(e.queue) > 0 && e.queue[0].at.Before(until) {
		return nil, e.queue[0].at.Sub(now)
	}
	return nil, until.Sub(now)
}

// eventQueue is a heap: the earliest comes first.
type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].number < q[j].number
	}
	return q[i].at.Before(q[j].at)
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *eventQueue) Push(x any) { *q = append(*q, x.(event)) }

// Pop implements heap.Interface.
func (q *eventQueue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	(*q)[last] = event{}
	*q = (*q)[:last]
	return x
}
