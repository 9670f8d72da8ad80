package ews

import (
	"context"
	"sync"
	"time"
)

// streamLimit is how many streaming connections the server allows the account,
// as far as it has said. It is safe for concurrent use.
type streamLimit struct {
	mu     sync.Mutex // guards what follows
	limit  int        // 0: it has not said
	open   int
	raised time.Time     // when the limit was last changed
	turned chan struct{} // closed, and made anew, when one is free
}

// relearn is how often a limit is tried to be exceeded by one, while somebody
// waits. Ours: connections of an agent that was killed count for some minutes.
const relearn = time.Minute

// enter takes a connection; false: none is free, and wait says for how long at
// most, if turned is not closed before.
func (l *streamLimit) enter(now time.Time) (ok bool, turned <-chan struct{}, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limit > 0 && l.open >= l.limit && now.Sub(l.raised) >= relearn {
		l.limit, l.raised = l.limit+1, now
	}
	if l.limit > 0 && l.open >= l.limit {
		return false, l.turned, relearn - now.Sub(l.raised)
	}
	l.open++
	return true, nil, 0
}

func (l *streamLimit) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	close(l.turned)
	l.turned = make(chan struct{})
}

// exceeded: the server refused one of those that are open. It returns the limit,
// and whether it is news.
func (l *streamLimit) exceeded(now time.Time) (limit int, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = l.limit == 0
	l.limit, l.raised = max(1, l.open), now // the one refused was released before
	return l.limit, first
}

func (l *streamLimit) now() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limit
}

// acquire waits for a connection. It returns false when ctx is done.
func (s *Source) acquire(ctx context.Context, g *group) bool {
	for {
		ok, turned, wait := s.streams.enter(time.Now())
		if ok {
			return true
		}
		either := make(chan struct{}, 1)
		timer := time.AfterFunc(wait, func() { notify(either) })
		stop := make(chan struct{})
		go func() { // ends with stop, which follows at once
			select {
			case <-turned:
				notify(either)
			case <-stop:
			}
		}()
		alive := pause(ctx, s, g, either)
		timer.Stop()
		close(stop)
		if !alive {
			return false
		}
	}
}

// used is how many are open.
func (l *streamLimit) used() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// slowAfter is after how long a request holds up no others any more. Ours.
const slowAfter = 2 * time.Second

// requestSlots bound the short requests under way: those that are quick, and
// besides those that take long. They are safe for concurrent use.
type requestSlots struct{ quick, slow chan struct{} }

func newRequestSlots(quick int) *requestSlots {
	return &requestSlots{make(chan struct{}, quick), make(chan struct{}, min(quick, MaxRequests-quick))}
}

// most is how many there can be in all.
func (r *requestSlots) most() int { return cap(r.quick) + cap(r.slow) }

// enter waits until one more may be under way. The caller calls leave, once.
func (r *requestSlots) enter(ctx context.Context) (leave func(), err error) {
	select {
	case r.quick <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var mu sync.Mutex // guards held
	held := r.quick
	timer := time.AfterFunc(slowAfter, func() {
		mu.Lock()
		defer mu.Unlock()
		if held == nil {
			return // it is over
		}
		select {
		case r.slow <- struct{}{}:
			<-held
			held = r.slow
		default: // too many are slow: the server is
		}
	})
	return func() {
		timer.Stop()
		mu.Lock()
		defer mu.Unlock()
		<-held
		held = nil
	}, nil
}
