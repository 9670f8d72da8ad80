package registry

import (
	"context"
	"sync"

	"badgerelay/relay"
)

// groups lets requests of one organization that wait for each other go in one
// transaction. It is safe for concurrent use.
type groups struct {
	mu      sync.Mutex // guards what follows, and the fields of waiting requests that say so
	waiting map[relay.OrganizationID][]*waiting
	serving sync.WaitGroup // a goroutine for each organization that somebody waits for
}

// waiting is a request that waits for its transaction.
type waiting struct {
	request
	canceled bool // guarded by groups.mu: nobody waits for it any more
	begun    bool // guarded by groups.mu: it can't be canceled

	declared declared // with err, written before done is closed
	err      error
	done     chan struct{}
}

func newGroups() groups { return groups{waiting: make(map[relay.OrganizationID][]*waiting)} }

// maxGroup is how many requests go in one transaction.
const maxGroup = 1000

// declare has a request done by serve, which is called for one organization
// once at a time, as long as somebody waits. If ctx ends before its transaction
// has begun, nothing is changed.
func (g *groups) declare(ctx context.Context, org relay.OrganizationID, q request, serve func()) (declared, error) {
	w := &waiting{request: q, done: make(chan struct{})}
	g.mu.Lock()
	queue, served := g.waiting[org]
	g.waiting[org] = append(queue, w)
	if !served {
		g.serving.Go(func() { // ends when nobody waits
			for g.anybody(org) {
				serve()
			}
		})
	}
	g.mu.Unlock()
	select {
	case <-w.done:
	case <-ctx.Done():
		if g.cancel(w) {
			return declared{}, ctx.Err()
		}
		<-w.done
	}
	return w.declared, w.err
}

// anybody reports whether somebody waits; if not, the next one starts serving
// anew.
func (g *groups) anybody(org relay.OrganizationID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting[org]) > 0 {
		return true
	}
	delete(g.waiting, org)
	return false
}

func (g *groups) cancel(w *waiting) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	w.canceled = !w.begun
	return w.canceled
}

// take returns those that wait now, up to maxGroup.
func (g *groups) take(org relay.OrganizationID) []*waiting {
	g.mu.Lock()
	defer g.mu.Unlock()
	queue := g.waiting[org]
	n := min(len(queue), maxGroup)
	g.waiting[org] = queue[n:]
	return queue[:n:n]
}

// begin returns those of ws that still wait; from here on they can't be
// canceled.
func (g *groups) begin(ws []*waiting) (rest []*waiting) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range ws {
		if !w.canceled {
			w.begun = true
			rest = append(rest, w)
		}
	}
	return rest
}

// wait returns when nobody is served.
func (g *groups) wait() { g.serving.Wait() }
