package apns

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// directPush is one push that came by Pool.Push. It is the Tag of its Request.
type directPush struct {
	request Request
	id      string // apns-id of the answer; written before done is closed
	err     *Error
	done    chan struct{}
}

func isDirect(tag any) bool {
	_, ok := tag.(*directPush)
	return ok
}

// directQueue holds pushes that came by Pool.Push.
type directQueue struct {
	waiting atomic.Int64 // not yet taken
	open    atomic.Int64 // not yet answered

	mu    sync.Mutex // a few memory operations
	queue []*directPush
}

// Push sends one badge outside the Source and returns the apns-id of the
// answer. It waits for a free stream and for the answer until ctx is done; what
// is on its way by then still goes.
//
// A refusal by Apple, and a push that got no answer, is an *Error. Push does
// not repeat. It is safe for concurrent use, and made for single pushes: a
// probe. After Run has ended it returns ErrClosed.
func (p *Pool) Push(ctx context.Context, r Request) (id string, err error) {
	if r.Device.IsZero() || r.Badge > MaxBadge {
		return "", transportError(ReasonInvalidRequest, nil)
	}
	d := &directPush{request: r, done: make(chan struct{})}
	d.request.Tag = d
	p.mu.Lock()
	stopped := p.stopped
	if !stopped {
		p.direct.add(d)
	}
	p.mu.Unlock()
	if stopped {
		return "", ErrClosed
	}
	p.Wake()
	select {
	case <-d.done:
	case <-ctx.Done():
		p.direct.cancel(d)
		p.mu.Lock()
		last := p.lastError
		p.mu.Unlock()
		if last != nil {
			return "", fmt.Errorf("push badge: %w; last error: %w", ctx.Err(), last)
		}
		return "", fmt.Errorf("push badge: %w", ctx.Err())
	}
	if d.err != nil {
		return d.err.ID, d.err
	}
	return d.id, nil
}

func (q *directQueue) add(d *directPush) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, d)
	q.open.Add(1)
	q.waiting.Add(1)
}

func (q *directQueue) cancel(d *directPush) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.queue, d); i >= 0 {
		q.queue = slices.Delete(q.queue, i, i+1)
		q.open.Add(-1)
		q.waiting.Add(-1)
	}
}

func (q *directQueue) take(dst []Request) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for n < len(dst) && n < len(q.queue) {
		dst[n] = q.queue[n].request
		n++
	}
	q.queue = slices.Delete(q.queue, 0, n)
	q.waiting.Add(-int64(n))
	return n
}

// done answers the direct pushes among results and returns the others.
func (q *directQueue) done(results []Result) []Result {
	rest := results[:0]
	for _, r := range results {
		d, ok := r.Tag.(*directPush)
		if !ok {
			rest = append(rest, r)
			continue
		}
		d.err = r.Err
		close(d.done)
		q.open.Add(-1)
	}
	return rest
}

// fail answers everything that was never taken.
func (q *directQueue) fail(err *Error) {
	q.mu.Lock()
	queue := q.queue
	q.queue = nil
	q.open.Add(-int64(len(queue)))
	q.waiting.Add(-int64(len(queue)))
	q.mu.Unlock()
	for _, d := range queue {
		d.err = err
		close(d.done)
	}
}
