package registry

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// changesTable is a table of changes as a database keeps it. Transactions draw an id for
// each change, and commit in any order, save those of one organization.
type changesTable struct {
	rows            []keptChange // committed
	running         map[int64][]checkpoint
	ended           int64           // the highest transaction that has
	locked          map[int64]int64 // organizations, by the transaction
	lastID, lastXID int64
}

func newChangesTable() *changesTable {
	return &changesTable{running: make(map[int64][]checkpoint), locked: make(map[int64]int64)}
}

// begin starts a transaction, of an organization or of somebody else (0).
func (c *changesTable) begin(org int64) (xid int64, ok bool) {
	if _, taken := c.locked[org]; taken {
		return 0, false
	}
	c.lastXID++
	c.running[c.lastXID] = nil
	if org != 0 {
		c.locked[org] = c.lastXID
	}
	return c.lastXID, true
}

func (c *changesTable) write(xid int64) {
	c.lastID++
	c.running[xid] = append(c.running[xid], checkpoint{c.lastID, xid})
}

func (c *changesTable) end(xid int64, commit bool) {
	for org, by := range c.locked {
		if by != xid {
			continue
		}
		delete(c.locked, org)
		for _, at := range c.running[xid] {
			if commit {
				c.rows = append(c.rows, keptChange{at, []Change{{Organization: 1, Mailbox: "m"}}})
			}
		}
	}
	delete(c.running, xid)
	c.ended = max(c.ended, xid)
}

// snapshot returns what PostgreSQL does: it names those that run below the
// highest that has ended, and none above.
func (c *changesTable) snapshot() Snapshot {
	s := Snapshot{Next: c.ended + 1}
	for xid := range c.running {
		if xid < s.Next {
			s.Running = append(s.Running, xid)
		}
	}
	return s
}

// crash ends what runs. Ids go on far above; those of transactions that left
// nothing behind are given again.
func (c *changesTable) crash() {
	c.running, c.locked = make(map[int64][]checkpoint), make(map[int64]int64)
	c.lastID, c.lastXID = c.lastID+32, 0
	for _, r := range c.rows {
		c.lastXID = max(c.lastXID, r.xid)
	}
	c.ended = c.lastXID
}

// read returns a page of up to limit changes beside those of running ones.
func (c *changesTable) read(at position, limit int) page {
	p := page{seen: c.snapshot()}
	slices.SortFunc(c.rows, func(a, b keptChange) int { return int(a.id - b.id) })
	next := 0
	for _, r := range c.rows {
		switch {
		case r.id <= at.last && !at.seen.has(r.xid):
			p.rows = append(p.rows, r)
		case r.id > at.last && next < limit:
			next++
			p.rows = append(p.rows, r)
		}
	}
	p.cut = next == limit
	return p
}

// TestPositionMissesNothing has transactions run in all orders beside a reader,
// and servers crash: each change that was committed is told once.
func TestPositionMissesNothing(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		table, at, now := newChangesTable(), position{}, time.Now()
		told := make(map[checkpoint]int)
		read := func(limit int) {
			p := table.read(at, limit)
			for _, row := range p.rows {
				if at.told(row.checkpoint) {
					t.Fatalf("seed %d: %v counts as told before it is", seed, row.checkpoint)
				}
				told[row.checkpoint]++
			}
			at = at.next(p, now)
			for _, row := range p.rows {
				if !at.told(row.checkpoint) {
					t.Fatalf("seed %d: %v does not count as told", seed, row.checkpoint)
				}
			}
		}
		for range 200 {
			running := slices.Sorted(maps.Keys(table.running))
			switch action := r.IntN(20); {
			case action < 6:
				table.begin(r.Int64N(6))
			case action < 11 && len(running) > 0:
				table.write(running[r.IntN(len(running))])
			case action < 14 && len(running) > 0:
				table.end(running[r.IntN(len(running))], r.IntN(4) > 0)
			case action == 14 && r.IntN(10) == 0:
				table.crash()
			case action > 14:
				read(1 + r.IntN(4))
			}
		}
		for at.last < table.lastID && len(table.read(at, 1).rows) > 0 || len(table.read(at, 9).rows) > 0 {
			read(9)
		}
		if len(told) != len(table.rows) {
			t.Fatalf("seed %d: told of %d changes, %d were committed", seed, len(told), len(table.rows))
		}
		for c, times := range told {
			if times != 1 {
				t.Fatalf("seed %d: told %d times of %v", seed, times, c)
			}
		}
	}
}

func TestPositionCheckpoints(t *testing.T) {
	now := time.Now()
	at := position{}.next(page{rows: []keptChange{{checkpoint: checkpoint{1, 7}}, {checkpoint: checkpoint{2, 8}}}}, now)
	if err := at.lost(2); err != nil {
		t.Errorf("both are there: got %v", err)
	}
	if err := at.lost(1); !errors.Is(err, ErrChangesMissed) {
		t.Errorf("one is gone: got %v, want ErrChangesMissed", err)
	}
	at = at.add(checkpoint{3, 9}, now)
	if err := at.lost(2); !errors.Is(err, ErrChangesMissed) {
		t.Errorf("one that was told without being read is gone: got %v, want ErrChangesMissed", err)
	}
	at = at.next(page{}, now.Add(checkpointLife))
	if err := at.lost(2); !errors.Is(err, ErrChangesMissed) {
		t.Errorf("one is gone at the end of their time: got %v, want ErrChangesMissed", err)
	}
	at = at.next(page{}, now.Add(checkpointLife+1))
	if err := at.lost(0); err != nil {
		t.Errorf("they may have been purged: got %v", err)
	}
	for range 2 * maxCheckpoints {
		at = at.add(checkpoint{4, 9}, now)
	}
	if len(at.checkpoints) > maxCheckpoints {
		t.Errorf("it keeps %d checkpoints, want at most %d", len(at.checkpoints), maxCheckpoints)
	}
}

func TestPositionLate(t *testing.T) {
	now := time.Now()
	at := position{}.next(page{}, now)
	if err := at.late(now.Add(changeRetention - time.Hour)); err != nil {
		t.Errorf("got %v an hour before changes are purged", err)
	}
	if err := at.late(now.Add(changeRetention - time.Hour + 1)); !errors.Is(err, ErrChangesMissed) {
		t.Errorf("got %v, want ErrChangesMissed", err)
	}
}
