package memory

import (
	"maps"
	"slices"
	"sync"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// changeLog is the table of changes. A transaction takes its number while it
// holds its organization's row, and shows what it changed when it commits; one
// that is rolled back leaves a number out.
type changeLog struct {
	mu      sync.Mutex // guards what follows; a leaf
	last    int64
	running map[int64]bool          // transactions, by number
	rows    []registry.LoggedChange // by id
}

// begin takes a number, for the transaction and for what it will show.
func (l *changeLog) begin() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	if l.running == nil {
		l.running = make(map[int64]bool)
	}
	l.running[l.last] = true
	return l.last
}

// end shows what the transaction changed; nothing: it was rolled back.
func (l *changeLog) end(id int64, changes []registry.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.running, id)
	if len(changes) == 0 {
		return
	}
	at, _ := slices.BinarySearchFunc(l.rows, id, func(r registry.LoggedChange, id int64) int { return int(r.ID - id) })
	l.rows = slices.Insert(l.rows, at, registry.LoggedChange{ID: id, Transaction: id, Changes: changes})
}

// read returns what a position has not read, and the position after it.
func (l *changeLog) read(from registry.Position) (found []registry.LoggedChange, next registry.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.rows {
		if !from.Told(r.ID, r.Transaction) {
			found = append(found, r)
		}
	}
	return found, from.Next(found, slices.Sorted(maps.Keys(l.running)), time.Now())
}

// position is the end of the log. A handle that begins has no need of what is
// older.
func (l *changeLog) position() registry.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := int64(0)
	if n := len(l.rows); n > 0 {
		last = l.rows[n-1].ID
	}
	return registry.PositionAtEnd(last, slices.Sorted(maps.Keys(l.running)))
}

// lock takes the rows of organizations, in the order of their numbers, so that
// two transactions don't wait for each other. Those that do not exist are left out.
func (h *Handle) lock(done <-chan struct{}, ids ...relay.OrganizationID) (unlock func(), ok bool) {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	var held []chan struct{}
	unlock = func() {
		for _, row := range held {
			<-row
		}
	}
	for _, id := range slices.Compact(ids) {
		h.database.mu.Lock()
		o := h.database.organizations[id]
		h.database.mu.Unlock()
		if o == nil {
			continue
		}
		select {
		case o.writing <- struct{}{}:
			held = append(held, o.writing)
		case <-done:
			unlock()
			return nil, false
		}
	}
	return unlock, true
}
