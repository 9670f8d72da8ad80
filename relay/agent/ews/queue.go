package ews

import (
	"container/heap"
	"slices"
	"time"
)

// box is a watched mailbox. Its fields belong to Source.mu.
type box struct {
	mailbox string
	gone    bool // Unwatch was called

	// Where it is and how it is heard.
	generation   int    // how often it was elsewhere than where it was looked for
	group        *group // nil: not placed
	subscription string // empty: none
	unstreamed   bool   // the server allows it no subscription: it is counted now and then
	folders      []folderID
	trialOf      *group // whose anchor it is about to be tried as

	// What is known of it.
	unread map[string]uint32 // by folder id; nil: never counted
	dirty  bool              // it waits to be handed on

	// What is to be done.
	recount   bool // its count is to be asked for
	busy      bool // a worker is at it
	again     bool // something came while it was counted: it is asked anew
	overtaken bool // a newer count came while it was counted
	waiters   []chan<- answer

	// When.
	class     class
	due       time.Time
	notBefore time.Time // the server or a failure says so
	failures  int       // in a row
	failure   error     // the last one
	mine      bool      // the failures are the connection's, not the mailbox's
	index     int       // in its queue; -1: in none
}

// total is the unread count, all folders added up.
func (b *box) total() uint32 {
	var sum uint64
	for _, n := range b.unread {
		sum += uint64(n)
	}
	return uint32(min(sum, maxUnread))
}

// maxUnread is the most that the relay takes.
const maxUnread = 1<<31 - 1

// class orders what is to be done.
type class uint8

const (
	news    class = iota // something has changed, or somebody asks
	initial              // it was not counted yet, or only to be sure
	failing              // it could not be done last time

	classes // how many there are
)

// boxes is a heap: the one that is due first comes first.
type boxes []*box

func (q boxes) Len() int           { return len(q) }
func (q boxes) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q boxes) Swap(i, j int)      { q[i], q[j] = q[j], q[i]; q[i].index, q[j].index = i, j }

// Push implements heap.Interface.
func (q *boxes) Push(x any) {
	b := x.(*box)
	b.index = len(*q)
	*q = append(*q, b)
}

// Pop implements heap.Interface.
func (q *boxes) Pop() any {
	last := len(*q) - 1
	b := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	b.index = -1
	return b
}

// enqueue has a mailbox worked on at due, or when it may be; a busy one is worked
// on again. The caller holds mu, and wakes the workers.
func (s *Source) enqueue(b *box, c class, due time.Time) {
	if b.gone {
		return
	}
	if b.busy {
		b.again = true
		return
	}
	if b.failures > 0 {
		c = failing
	}
	if b.notBefore.After(due) {
		due = b.notBefore
	}
	if b.index >= 0 {
		if b.class <= c && !b.due.After(due) {
			return // it comes earlier already
		}
		s.dequeue(b)
	}
	if g := b.group; g != nil {
		g.parked = slices.DeleteFunc(g.parked, func(other *box) bool { return other == b })
	}
	b.class, b.due = c, due
	heap.Push(&s.queues[c], b)
}

// dequeue takes a mailbox out of its queue. The caller holds mu.
func (s *Source) dequeue(b *box) {
	if b.index >= 0 {
		heap.Remove(&s.queues[b.class], b.index)
	}
}

// take returns the next mailbox to work on; nil: none is due within wait, or,
// where wait is 0, until wake. Mailboxes that failed take a quarter of the
// workers at most: one that fails slowly delays no other.
func (s *Source) take(now time.Time) (b *box, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.queues {
		q := &s.queues[c]
		for len(*q) > 0 {
			if class(c) == failing && s.failingNow >= max(1, s.config.requests()/4) {
				break
			}
			b := (*q)[0]
			if b.due.After(now) {
				wait = sooner(wait, b.due.Sub(now))
				break
			}
			heap.Pop(q)
			if s.park(b) {
				continue
			}
			b.busy = true
			if class(c) == failing {
				s.failingNow++
			}
			notify(s.wake) // there may be more, for another worker
			return b, 0
		}
	}
	return nil, wait
}

// takeUnplaced returns more mailboxes that have no place yet, to be looked for
// together.
func (s *Source) takeUnplaced(most int, now time.Time) []*box {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*box
	for c := range failing {
		for _, b := range s.queues[c] {
			if len(found) < most && b.group == nil && !b.due.After(now) {
				found = append(found, b)
			}
		}
	}
	for _, b := range found {
		s.dequeue(b)
		b.busy = true
	}
	return found
}

// sooner returns the shorter of two times to wait; 0 is none.
func sooner(wait, other time.Duration) time.Duration {
	if wait == 0 {
		return other
	}
	return min(wait, other)
}

// notify fills a one-slot channel.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
