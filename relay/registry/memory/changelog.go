package memory

import (
	"slices"
	"sync"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// changeLog is the table of changes. A transaction takes its number when it
// begins, and the id of what it changes when it holds its organization's row; it
// shows that when it commits. One that is rolled back leaves both out.
type changeLog struct {
	mu           sync.Mutex              // guards what follows; a leaf
	transactions int64                   // the last number
	ids          int64                   // the last id
	running      map[int64]bool          // transactions, by number
	ended        int64                   // the highest number of one that has
	rows         []registry.LoggedChange // by id
}

// begin takes a number for a transaction.
func (l *changeLog) begin() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.transactions++
	if l.running == nil {
		l.running = make(map[int64]bool)
	}
	l.running[l.transactions] = true
	return l.transactions
}

// draw takes an id for what a transaction will show.
func (l *changeLog) draw() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids++
	return l.ids
}

// end shows what the transaction changed; nothing: it was rolled back.
func (l *changeLog) end(transaction, id int64, changes []registry.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.running, transaction)
	l.ended = max(l.ended, transaction)
	if len(changes) == 0 {
		return
	}
	at, _ := slices.BinarySearchFunc(l.rows, id, func(r registry.LoggedChange, id int64) int { return int(r.ID - id) })
	l.rows = slices.Insert(l.rows, at, registry.LoggedChange{ID: id, Transaction: transaction, Changes: changes})
}

// snapshot is as PostgreSQL's: of the transactions that run it names those below
// the highest that has ended. The caller holds mu.
func (l *changeLog) snapshot() registry.Snapshot {
	s := registry.Snapshot{Next: l.ended + 1}
	for transaction := range l.running {
		if transaction < s.Next {
			s.Running = append(s.Running, transaction)
		}
	}
	slices.Sort(s.Running)
	return s
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
	return found, from.Next(found, l.snapshot(), time.Now())
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
	return registry.PositionAtEnd(last, l.snapshot())
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
