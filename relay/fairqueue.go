package relay

import (
	"sync"

	"badgerelay/relay/fair"
)

// fairQueue holds what waits for the registry, by organization. It is safe for
// concurrent use.
type fairQueue[T comparable] struct {
	mu      sync.Mutex // a leaf; guards waiting
	waiting fair.Queue[OrganizationID, T]

	added chan struct{} // one slot
}

func (q *fairQueue[T]) begin() { q.added = make(chan struct{}, 1) }

// add puts something at the end of an organization's.
func (q *fairQueue[T]) add(org OrganizationID, items ...T) {
	q.mu.Lock()
	q.waiting.Add(org, items...)
	q.mu.Unlock()
	notify(q.added)
}

// next takes up to n, an equal share of each organization's as far as it has them.
func (q *fairQueue[T]) next(into []T, n int) []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting.Next(into, n)
}
