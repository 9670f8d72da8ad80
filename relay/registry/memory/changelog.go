package memory

import (
	"slices"
	"sync"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// changeLog is the table of changes. A transaction takes its number while it
// holds its organization's row, and shows what it changed when it commits; one
// that is rolled back leaves a number out.
type changeLog struct {
	mu      sync.Mutex // guards what follows; a leaf
	last    int64
	running map[int64]bool // numbers that are taken and not yet committed
	rows    []logRow       // by number
}

type logRow struct {
	id      int64
	changes []registry.Change
}

// begin takes a number.
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
	at, _ := slices.BinarySearchFunc(l.rows, id, func(r logRow, id int64) int { return int(r.id - id) })
	l.rows = slices.Insert(l.rows, at, logRow{id, changes})
}

// after returns the rows beyond id, up to the oldest transaction that runs:
// nothing with a lower number comes any more.
func (l *changeLog) after(id int64) []logRow {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := l.last + 1
	for running := range l.running {
		end = min(end, running)
	}
	var found []logRow
	for _, r := range l.rows {
		if r.id > id && r.id < end {
			found = append(found, r)
		}
	}
	return found
}

// end of the log as a handle begins: what is older is of no interest, save what
// still runs.
func (l *changeLog) settled() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := l.last
	for running := range l.running {
		end = min(end, running-1)
	}
	return end
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
