package relay

import "sync"

// fairQueue holds what waits for the registry, by organization. Organizations are
// served in turn, so that the flood of one does not delay another's. It is safe
// for concurrent use.
type fairQueue[T any] struct {
	mu    sync.Mutex // a leaf; guards what follows
	turns map[OrganizationID]*turn[T]
	order []*turn[T] // those that wait; the first is served next

	added chan struct{} // one slot
}

// turn is one organization's part of the queue.
type turn[T any] struct {
	org     OrganizationID
	waiting []T
}

func (q *fairQueue[T]) begin() {
	q.turns = map[OrganizationID]*turn[T]{}
	q.added = make(chan struct{}, 1)
}

// add puts something at the end of an organization's.
func (q *fairQueue[T]) add(org OrganizationID, items ...T) {
	q.mu.Lock()
	t := q.turns[org]
	if t == nil {
		t = &turn[T]{org: org}
		q.turns[org] = t
		q.order = append(q.order, t)
	}
	t.waiting = append(t.waiting, items...)
	q.mu.Unlock()
	notify(q.added)
}

// next takes up to n, an equal share of each organization's as far as it has them.
func (q *fairQueue[T]) next(into []T, n int) []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	share := max(1, n/max(1, len(q.order)))
	for len(q.order) > 0 && len(into) < n {
		t := q.order[0]
		q.order[0] = nil // the array lives on
		q.order = q.order[1:]
		taken := min(share, n-len(into), len(t.waiting))
		into = append(into, t.waiting[:taken]...)
		clear(t.waiting[:taken])
		if t.waiting = t.waiting[taken:]; len(t.waiting) == 0 {
			delete(q.turns, t.org)
			continue
		}
		q.order = append(q.order, t)
	}
	return into
}
