package relay

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
)

// appTable is the dispatchers of all apps. It is read without a lock, and a
// change replaces it as a whole: apps come, and none goes, so that an index
// means the same for ever.
type appTable struct {
	now atomic.Pointer[apps]

	mu    sync.Mutex    // held while the table is replaced
	added chan struct{} // one slot: an app has come
}

// apps is one state of the table; it never changes.
type apps struct {
	byName map[string]*dispatcher
	list   []*dispatcher // by dispatcher.index
}

func (t *appTable) begin() {
	t.added = make(chan struct{}, 1)
	t.now.Store(&apps{})
}

// named returns the app's dispatcher, nil if there is none.
func (t *appTable) named(name string) *dispatcher { return t.now.Load().byName[name] }

// all returns the dispatchers by index.
func (t *appTable) all() []*dispatcher { return t.now.Load().list }

// add returns the app's dispatcher, which it makes if there is none.
func (t *appTable) add(r *Relay, name string) *dispatcher {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.now.Load()
	if d := old.byName[name]; d != nil {
		return d
	}
	d := newDispatcher(r, name, len(old.list))
	next := &apps{byName: maps.Clone(old.byName), list: append(old.list[:len(old.list):len(old.list)], d)}
	if next.byName == nil {
		next.byName = map[string]*dispatcher{}
	}
	next.byName[name] = d
	t.now.Store(next)
	notify(t.added)
	return d
}

// runBreakers runs the breaker of every app, those that come later included,
// until ctx is done.
func (t *appTable) runBreakers(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for started := 0; ; {
		for _, d := range t.all()[started:] {
			running.Go(func() { d.runBreaker(ctx) }) // ends with ctx
			started++
		}
		select {
		case <-t.added:
		case <-ctx.Done():
			return
		}
	}
}
