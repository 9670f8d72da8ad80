package registry

import (
	"fmt"
	"slices"
	"time"
)

// position is how far a relay has come in the table of changes: the highest id
// that it has read, and the snapshot in which it did.
//
// That is all it takes to miss nothing and to be told nothing twice. Ids are
// drawn in order, but the transactions that drew them may commit in another
// one. A change with a lower id that was not there yet is of a transaction that
// had not ended in the snapshot; so the next read asks for higher ids, and for
// lower ones of such transactions. How long one runs does not matter, nor ids
// that were drawn for nothing. Changes of one organization have ids in the order
// of their commits, because who writes them holds the lock of the organization's row.
//
// It knows no database; postgres_changes.go reads for it. The zero value is
// before the first change.
type position struct {
	last int64 // the highest id read
	seen Snapshot

	// checkpoints are the changes that were read last. What a standby lacks that takes
	// over is what was committed last; so if they are there, all is.
	checkpoints []checkpoint
	checkedAt   time.Time // when checkpoints were read
	read        time.Time // when there was a read
}

// Snapshot says which transactions had ended in the eyes of a read: those below
// Next, save the running ones. From Next on some may run, too, but none had
// ended. They are the xmax and the xip_list of PostgreSQL's pg_snapshot.
type Snapshot struct {
	Next    int64
	Running []int64
}

// has reports whether a transaction had ended.
func (s Snapshot) has(xid int64) bool { return xid < s.Next && !slices.Contains(s.Running, xid) }

// checkpoint tells a change from another one that was given its id again.
type checkpoint struct{ id, xid int64 }

// Bounds of what a reader keeps.
const (
	// checkpointLife is for how long checkpoints are looked for: shorter than changes are kept.
	checkpointLife = changeRetention / 2
	maxCheckpoints = 2 * changelogPage
)

// keptChange is a row of the table of changes.
type keptChange struct {
	checkpoint
	changes []Change
}

// page is what one read found, in one snapshot of the database: the changes up to
// last of the transactions that had not ended, and the next ones, by id.
type page struct {
	rows []keptChange
	seen Snapshot
	cut  bool // there are more
}

// next returns the position after a page, at the time now.
func (p position) next(read page, now time.Time) position {
	p.read = now
	if now.Sub(p.checkedAt) > checkpointLife {
		p.checkpoints = nil
	}
	p.seen = read.seen
	if len(read.rows) == 0 {
		return p
	}
	p.checkpoints, p.checkedAt = nil, now
	for _, r := range read.rows {
		p.last = max(p.last, r.id)
		p.checkpoints = append(p.checkpoints, r.checkpoint)
	}
	return p
}

// told reports whether a change has been read.
func (p position) told(c checkpoint) bool {
	return c.id <= p.last && p.seen.has(c.xid)
}

// add makes a checkpoint of a change that was told without being read; it will be read, too.
func (p position) add(c checkpoint, now time.Time) position {
	p.checkpoints, p.checkedAt = append(slices.Clip(p.checkpoints), c), now
	if len(p.checkpoints) > maxCheckpoints {
		p.checkpoints = p.checkpoints[1:]
	}
	return p
}

// late returns ErrChangesMissed where changes may have been purged unread.
func (p position) late(now time.Time) error {
	if now.Sub(p.read) > changeRetention-time.Hour {
		return fmt.Errorf("%w: database was out of reach for longer than it keeps them", ErrChangesMissed)
	}
	return nil
}

// lost returns ErrChangesMissed where not all of the checkpoints were found.
func (p position) lost(found int) error {
	if missing := len(p.checkpoints) - found; missing > 0 {
		return fmt.Errorf("%w: of the %d read last %d are gone: a standby without them took over", ErrChangesMissed, len(p.checkpoints), missing)
	}
	return nil
}
