// Package fair keeps what waits in a queue that serves organizations in turn, so
// that the flood of one does not delay another's.
//
// It decides who is next, and nothing else: whoever holds a queue guards it, and
// wakes whoever takes from it.
package fair

import "slices"

// Queue holds items by organization, first in, first out for each of them. The
// zero value is ready. It is not safe for concurrent use.
type Queue[K, T comparable] struct {
	turns map[K]*turn[K, T] // of those that have items
	last  *turn[K, T]       // a circle of the same: the one that was served last; nil: nothing waits
	count int               // items
	spare []*turn[K, T]     // empty, to be used again
}

// turn is one organization's part of the queue.
type turn[K, T comparable] struct {
	key   K
	items []T
	first int // items before it have been taken; their room is used again
	next  *turn[K, T]
	once  map[T]struct{} // those that AddOnce put there
}

const (
	maxSpare      = 64   // turns that are kept for whoever comes next
	maxSpareItems = 1024 // and how much room for items one of them may have
)

// Len returns how many items wait.
func (q *Queue[K, T]) Len() int { return q.count }

// Add puts items behind those of the organization.
func (q *Queue[K, T]) Add(key K, items ...T) {
	if len(items) == 0 {
		return
	}
	t := q.turn(key)
	if len(t.items)+len(items) > cap(t.items) && t.first >= len(t.items)/2 {
		t.items = slices.Delete(t.items, 0, t.first)
		t.first = 0
	}
	t.items = append(t.items, items...)
	q.count += len(items)
}

// AddFirst puts an item in front of those of the organization.
func (q *Queue[K, T]) AddFirst(key K, item T) {
	t := q.turn(key)
	if t.first == 0 {
		room := max(16, len(t.items)) // for as many more
		t.items = slices.Insert(t.items, 0, make([]T, room)...)
		t.first = room
	}
	t.first--
	t.items[t.first] = item
	q.count++
}

// AddOnce puts an item in front of those of the organization, or behind them, unless
// AddOnce has before, and it is there still.
func (q *Queue[K, T]) AddOnce(key K, item T, first bool) {
	t := q.turn(key)
	if _, is := t.once[item]; is {
		return
	}
	if t.once == nil {
		t.once = map[T]struct{}{}
	}
	t.once[item] = struct{}{}
	if first {
		q.AddFirst(key, item)
	} else {
		q.Add(key, item)
	}
}

// turn returns the organization's turn, the last one if it had nothing.
func (q *Queue[K, T]) turn(key K) *turn[K, T] {
	t := q.turns[key]
	if t != nil {
		return t
	}
	if n := len(q.spare); n > 0 {
		t, q.spare = q.spare[n-1], q.spare[:n-1]
	} else {
		t = new(turn[K, T])
	}
	if q.turns == nil {
		q.turns = map[K]*turn[K, T]{}
	}
	t.key = key
	q.turns[key] = t
	if q.last == nil {
		t.next = t
	} else {
		t.next, q.last.next = q.last.next, t
	}
	q.last = t
	return t
}

// Next takes up to n items and appends them to into: an equal share of each
// organization's as far as it has so many.
func (q *Queue[K, T]) Next(into []T, n int) []T {
	n = min(n, q.count)
	for n > 0 {
		share := max(1, n/len(q.turns))
		for range len(q.turns) {
			t := q.last.next
			taken := t.items[t.first:]
			taken = taken[:min(share, n, len(taken))]
			into = append(into, taken...)
			if len(t.once) > 0 {
				for _, item := range taken {
					delete(t.once, item)
				}
			}
			clear(taken)
			t.first += len(taken)
			q.count -= len(taken)
			if t.first == len(t.items) {
				q.remove(t)
			} else {
				q.last = t
			}
			if n -= len(taken); n == 0 {
				break
			}
		}
	}
	return into
}

// remove takes the turn out that would have been served next.
func (q *Queue[K, T]) remove(t *turn[K, T]) {
	delete(q.turns, t.key)
	q.last.next = t.next
	if q.last == t { // it was the only one
		q.last = nil
	}
	if len(q.spare) < maxSpare && cap(t.items) <= maxSpareItems {
		*t = turn[K, T]{items: t.items[:0], once: t.once}
		q.spare = append(q.spare, t)
	}
}
