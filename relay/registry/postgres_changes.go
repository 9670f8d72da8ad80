package registry

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Bounds of the table of changes. A relay that could not read it for longer
// than rows are kept has missed some, and ends.
const (
	changeRetention = 24 * time.Hour
	changelogPage   = 1000 // rows of one read

	// changesKept is how many ids at least are kept, however old. It is a
	// thousand because a relay may be some hundreds behind for a moment.
	changesKept = "1000"
)

// changelogReader follows the table of changes.
type changelogReader struct {
	// turn holds a token while nobody reads. Who took it owns what follows, for
	// a read and the telling of what it found: that is what keeps the listeners
	// from being called twice at once. It is a channel because it is held over I/O.
	turn chan struct{}
	at   position
}

func newChangelogReader() *changelogReader {
	t := &changelogReader{turn: make(chan struct{}, 1)}
	t.turn <- struct{}{}
	return t
}

const (
	// pgSnapshot is the statement's snapshot.
	pgSnapshot = `pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
		ARRAY (SELECT xid::text::bigint FROM pg_snapshot_xip(pg_current_snapshot()) xid)`

	// selectPosition is the end of the table. Listeners have no need of what is in
	// it by now: whatever they read later is newer. An import's changes, told to
	// a relay that starts, would have it look up a million mailboxes one by one.
	selectPosition = `SELECT coalesce(max(id), 0), ` + pgSnapshot + ` FROM changes`

	// selectChanges is a row without a change, then a page after the position of
	// last $1 and the snapshot of next $2 and running $3. The first says what else
	// is to be known of the same snapshot: itself, and how many of the checkpoints ($4,
	// $5) are there. The reader's own changes ($7, $8) come without data.
	selectChanges = `SELECT 0 AS id, 0 AS xid, NULL AS data, ` + pgSnapshot + `,
			(SELECT count(*) FROM unnest($4::bigint[], $5::bigint[]) AS m (id, xid) JOIN changes c ON c.id = m.id AND c.xid = m.xid)
		UNION ALL SELECT id, xid, ` + othersData + `, 0, NULL, 0 FROM changes WHERE (xid >= $2 OR xid = ANY ($3::bigint[])) AND id <= $1
		UNION ALL (SELECT id, xid, ` + othersData + `, 0, NULL, 0 FROM changes WHERE id > $1 ORDER BY id LIMIT $6)
		ORDER BY id`
	othersData = `CASE WHEN (id, xid) IN (SELECT * FROM unnest($7::bigint[], $8::bigint[])) THEN NULL ELSE data END`
)

// startChangelog puts the position at the end.
func (p *postgresServer) startChangelog(ctx context.Context) error {
	now := time.Now()
	return p.read(ctx, statement{query: selectPosition, each: func(row scanner) error {
		p.changelog.at = position{read: now}
		return row.Scan(&p.changelog.at.last, &p.changelog.at.seen.Next, &p.changelog.at.seen.Running)
	}})
}

// keepChanges queues the writing of changes for the other relays: one row for each
// organization; c.kept holds them afterwards. It is the last thing before the
// commit, when the organizations' rows are locked.
func (c *pgConn) keepChanges(changes []Change) error {
	for _, group := range byOrganization(changes) {
		data, err := marshalChanges(group)
		if err != nil {
			return err
		}
		c.queue(statement{query: `INSERT INTO changes (made_at, data) VALUES (` + pgBegan + `, $1) RETURNING id, xid`,
			args: []any{data}, each: func(row scanner) error {
				kept := keptChange{changes: group}
				err := row.Scan(&kept.id, &kept.xid)
				c.kept = append(c.kept, kept)
				return err
			}})
	}
	return nil
}

// tell tells listeners of a commit, and of everything that came before it. If
// the table can't be read now they learn at least of the commit itself, and
// once more when it can be.
func (p *postgresServer) tell(ctx context.Context, kept []keptChange, changes []Change) {
	if len(kept) > 0 {
		p.news.Store(true)
		select {
		case p.hint <- struct{}{}:
		default:
		}
	}
	// Without ctx, because listeners must have been told when the call returns.
	// Who holds the turn gives it back: every read of the table is bounded.
	<-p.changelog.turn
	defer func() { p.changelog.turn <- struct{}{} }()
	if slices.ContainsFunc(kept, func(c keptChange) bool { return !p.changelog.at.told(c.checkpoint) }) {
		if err := p.follow(ctx, kept); err != nil {
			p.log.Warn("could not read changes", "error", err)
			for _, c := range kept {
				p.changelog.at = p.changelog.at.add(c.checkpoint, time.Now())
			}
			p.feed.publish(changes)
		}
	}
}

// catchUp tells listeners what is new in the table.
func (p *postgresServer) catchUp(ctx context.Context) error {
	select {
	case <-p.changelog.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { p.changelog.turn <- struct{}{} }()
	return p.follow(ctx, nil)
}

// follow reads the table to its end. own are changes in it that need not be fetched. The
// caller holds the turn.
func (p *postgresServer) follow(ctx context.Context, own []keptChange) error {
	for {
		now := time.Now()
		if err := p.changelog.at.late(now); err != nil {
			return err
		}
		read, err := p.readChanges(ctx, p.changelog.at, own)
		if err != nil {
			return err
		}
		p.changelog.at = p.changelog.at.next(read, now)
		for _, r := range read.rows {
			p.feed.publish(r.changes)
		}
		if !read.cut {
			return nil
		}
	}
}

// readChanges returns what comes after a position, or ErrChangesMissed. own are changes
// that may come after it and need not be fetched.
func (p *postgresServer) readChanges(ctx context.Context, at position, own []keptChange) (read page, err error) {
	ids, xids := columnsOf(at.checkpoints)
	known, checkpoints := make(map[checkpoint][]Change, len(own)), make([]checkpoint, len(own))
	for i, c := range own { // a standby that lacked one may have given its id and transaction to another row only if it took over since the commit
		known[c.checkpoint], checkpoints[i] = c.changes, c.checkpoint
	}
	ownIDs, ownXIDs := columnsOf(checkpoints)
	found, first := 0, true
	args := []any{at.last, at.seen.Next, at.seen.Running, ids, xids, changelogPage, ownIDs, ownXIDs}
	err = p.read(ctx, statement{query: selectChanges, args: args, each: func(row scanner) error {
		var r keptChange
		var data []byte
		var seen Snapshot
		var there int
		if err := row.Scan(&r.id, &r.xid, &data, &seen.Next, &seen.Running, &there); err != nil {
			return err
		}
		if first {
			first, read.seen, found = false, seen, there
			return nil
		}
		var isOwn bool
		if r.changes, isOwn = known[r.checkpoint]; !isOwn {
			if r.changes, err = unmarshalChanges(data); err != nil {
				return fmt.Errorf("read change %d: %w", r.id, err)
			}
		}
		read.rows = append(read.rows, r)
		return nil
	}})
	if err == nil {
		err = at.lost(found)
	}
	read.cut = len(read.rows) >= changelogPage
	return read, err
}

// columnsOf returns the columns of checkpoints, for arrays of a statement.
func columnsOf(all []checkpoint) (ids, xids []int64) {
	ids, xids = make([]int64, len(all)), make([]int64, len(all))
	for i, c := range all {
		ids[i], xids[i] = c.id, c.xid
	}
	return ids, xids
}
