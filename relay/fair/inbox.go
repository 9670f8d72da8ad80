package fair

import "sync"

// Inbox is a Queue that is safe for concurrent use, for one goroutine that takes
// from it. NewInbox makes one.
type Inbox[K, T comparable] struct {
	mu      sync.Mutex // a leaf; guards waiting
	waiting Queue[K, T]

	added chan struct{}
}

// NewInbox makes an empty Inbox.
func NewInbox[K, T comparable]() *Inbox[K, T] {
	return &Inbox[K, T]{added: make(chan struct{}, 1)}
}

// Add puts items behind those of the organization.
func (i *Inbox[K, T]) Add(key K, items ...T) {
	i.mu.Lock()
	i.waiting.Add(key, items...)
	i.mu.Unlock()
	select {
	case i.added <- struct{}{}:
	default:
	}
}

// Next takes up to n items and appends them to into, as Queue.Next does.
func (i *Inbox[K, T]) Next(into []T, n int) []T {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.waiting.Next(into, n)
}

// Added is a channel of one slot, which is filled when something has been added.
func (i *Inbox[K, T]) Added() <-chan struct{} { return i.added }
