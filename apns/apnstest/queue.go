package apnstest

import "time"

// queue is what a connection does later, earliest first: answers that take
// their time, and the end of passing faults. One timer serves all of it.
type queue []later

// later is one entry: a stream to answer, or something to do.
type later struct {
	due time.Time
	seq uint64 // keeps equal times in order
	st  *stream
	do  func()
}

func (q queue) less(i, j int) bool {
	if q[i].due.Equal(q[j].due) {
		return q[i].seq < q[j].seq
	}
	return q[i].due.Before(q[j].due)
}

// push adds an entry. Written out instead of container/heap, which would
// allocate for each answer.
func (q *queue) push(e later) {
	*q = append(*q, e)
	h := *q
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h.less(i, parent) {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

// pop removes the earliest entry if it is due.
func (q *queue) pop(now time.Time) (later, bool) {
	h := *q
	if len(h) == 0 || h[0].due.After(now) {
		return later{}, false
	}
	first := h[0]
	last := len(h) - 1
	h[0], h[last] = h[last], later{}
	h = h[:last]
	*q = h
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return first, true
		}
		if child+1 < last && h.less(child+1, child) {
			child++
		}
		if !h.less(child, i) {
			return first, true
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}
