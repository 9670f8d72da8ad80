package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"badgerelay/relay"
)

// Bounds of the change table. A relay that could not read it for longer than
// rows are kept has missed some, and ends.
const (
	changeRetention = 24 * time.Hour
	tailPage        = 1000      // rows of one read
	tailOverlap     = 1000      // ids that may be on their way at the start
	gapLife         = time.Hour // no transaction takes longer

	// changesKept is how many ids at least are kept, however old. It is a
	// thousand because a relay may be some hundreds behind for a moment.
	changesKept = "1000"

	// tailMarks is how many of the rows told last are looked at again with every
	// read, and markLife for how long: shorter than rows are kept.
	tailMarks = 64
	markLife  = changeRetention / 2

	// tailJump is how many ids at most are taken for those of transactions that
	// have not committed yet. One can have removeBatch of them, so this is a
	// hundred at once; beyond it somebody moved the sequence.
	tailJump = 100 * removeBatch
)

// tail is the position in the table of changes. The rows of one organization
// have ids in the order of their commits; between organizations an id may become
// visible after a higher one, so that ids left out are asked for again.
type tail struct {
	// turn holds a token while nobody reads. Who took it owns what follows, for
	// a read and the telling of what it found: that is what keeps the listeners
	// from being called twice at once. It is a channel because it is held over I/O.
	turn chan struct{}
	last int64               // the highest id told
	gaps map[int64]time.Time // ids below last that were not there, and since when
	read time.Time           // when it was last read

	// The rows told last. As long as they are there, nothing that was told is
	// lost; see checkMarks.
	marks []mark
}

// mark is a row of the table of changes that was told.
type mark struct {
	id, madeAt int64
	since      time.Time // when it was made, or later
}

func newTail() *tail {
	t := &tail{turn: make(chan struct{}, 1), gaps: make(map[int64]time.Time)}
	t.turn <- struct{}{}
	return t
}

// pgLastID is the last id that the sequence s gave. A new sequence has given none,
// and its last_value is what it gives first.
const pgLastID = `CASE WHEN s.is_called THEN s.last_value ELSE s.last_value - 1 END`

// start puts the position at the end, which is the sequence's, because the table
// may have been purged empty. Listeners have no need of what is in the table by
// now: whatever they read later is newer. An import's changes, told to a relay
// that starts, would have it look up a million mailboxes one by one. What was on
// its way is not in the table yet, and is asked for again.
func (t *tail) start(ctx context.Context, pool *pgxpool.Pool) error {
	now := time.Now()
	there := make(map[int64]bool)
	rows, err := pool.Query(ctx, `SELECT `+pgLastID+`, c.id FROM changes_id_seq s LEFT JOIN changes c ON c.id > s.last_value - $1`, tailOverlap)
	err = pgEachRow(rows, err, func(rows scanner) error {
		var id *int64 // nil: there is no row
		err := rows.Scan(&t.last, &id)
		if id != nil {
			there[*id] = true
		}
		return err
	})
	for id := max(t.last-tailOverlap+1, 1); id <= t.last; id++ {
		if !there[id] {
			t.gaps[id] = now
		}
	}
	t.read = now
	return err
}

// told reports whether these ids have been read.
func (t *tail) told(ids []int64) bool {
	for _, id := range ids {
		if _, gap := t.gaps[id]; gap || id > t.last {
			return false
		}
	}
	return true
}

// wire is how a Change is kept. Members that a program does not know are passed
// over, so that newer relays can add some.
type wire struct {
	Kind         string `json:"kind"`
	Organization int64  `json:"organization"`
	Name         string `json:"name"`
	Enabled      bool   `json:"enabled,omitempty"`
	Mailbox      string `json:"mailbox,omitempty"`
	Live         bool   `json:"live,omitempty"`
	Renewed      bool   `json:"renewed,omitempty"`
	Credential   string `json:"credential,omitempty"`
	Key          []byte `json:"key,omitempty"`
}

func toWire(c Change) wire {
	w := wire{Kind: c.Kind.String(), Organization: int64(c.Organization), Name: c.OrganizationName, Enabled: c.OrganizationEnabled,
		Mailbox: c.Mailbox, Live: c.Live, Renewed: c.Renewed, Credential: c.CredentialID}
	if w.Credential != "" {
		w.Key = c.KeySHA256[:]
	}
	return w
}

// change returns false for a kind that this program does not know.
func (w wire) change() (Change, bool) {
	kind := slices.Index(changeKindNames[:], w.Kind)
	c := Change{Kind: ChangeKind(max(kind, 0)), Organization: relay.OrganizationID(w.Organization), OrganizationName: w.Name,
		OrganizationEnabled: w.Enabled, Mailbox: w.Mailbox, Live: w.Live, Renewed: w.Renewed, CredentialID: w.Credential}
	copy(c.KeySHA256[:], w.Key)
	return c, kind > 0
}

// keepChanges queues the writing of changes for the other relays: a row for each
// organization, whose ids and time are in the kept rows then. It is the last
// thing before the commit, when the organizations' rows are locked.
func (c *pgConn) keepChanges(changes []Change) error {
	var order []relay.OrganizationID
	by := make(map[relay.OrganizationID][]wire)
	for _, change := range changes {
		if by[change.Organization] == nil {
			order = append(order, change.Organization)
		}
		by[change.Organization] = append(by[change.Organization], toWire(change))
	}
	for _, org := range order {
		data, err := json.Marshal(by[org])
		if err != nil {
			return fmt.Errorf("encode changes: %w", err)
		}
		c.queue(statement{query: `INSERT INTO changes (made_at, data) VALUES (` + pgBegan + `, $1) RETURNING id, made_at`,
			args: []any{string(data)}, each: func(row scanner) error {
				var id int64
				err := row.Scan(&id, &c.madeAt)
				c.kept = append(c.kept, id)
				return err
			}})
	}
	return nil
}

// tell tells listeners of a commit, and of everything that came before it. If
// the table can't be read now they learn at least of the commit itself, and
// once more when it can be.
func (p *postgresServer) tell(ctx context.Context, ids []int64, madeAt int64, changes []Change) {
	if len(ids) == 0 {
		return
	}
	p.news.Store(true)
	select {
	case p.hint <- struct{}{}:
	default:
	}
	// Without ctx, because listeners must have been told when the call returns.
	// Who holds the turn gives it back: every read of the table is bounded.
	<-p.tail.turn
	defer func() { p.tail.turn <- struct{}{} }()
	if p.tail.told(ids) {
		return
	}
	if err := p.follow(ctx); err != nil {
		p.log.Warn("could not read changes", "error", err)
		for _, id := range ids {
			p.tail.mark(mark{id, madeAt, time.Now()})
		}
		p.feed.publish(changes)
	}
}

// catchUp tells listeners what is new in the table.
func (p *postgresServer) catchUp(ctx context.Context) error {
	select {
	case <-p.tail.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { p.tail.turn <- struct{}{} }()
	return p.follow(ctx)
}

// follow reads the table to its end. The caller holds the turn.
func (p *postgresServer) follow(ctx context.Context) error {
	t := p.tail
	if time.Since(t.read) > changeRetention-time.Hour {
		return fmt.Errorf("%w: database was out of reach for longer than it keeps them", ErrChangesMissed)
	}
	for {
		now := time.Now()
		rows, err := p.readChanges(ctx)
		if err != nil {
			return err
		}
		for _, r := range rows {
			t.pass(r.id, now)
			t.mark(mark{r.id, r.madeAt, now.Add(-r.age)})
			p.feed.publish(r.changes)
		}
		t.read = now
		if len(rows) < tailPage {
			t.closeGaps(now)
			return nil
		}
	}
}

// pass notes that a row was read.
func (t *tail) pass(id int64, now time.Time) {
	delete(t.gaps, id)
	for missing := max(t.last+1, id-tailJump); missing < id; missing++ {
		t.gaps[missing] = now
	}
	t.last = max(t.last, id)
}

// mark remembers a row that was told.
func (t *tail) mark(m mark) {
	if len(t.marks) == tailMarks {
		t.marks = t.marks[1:]
	}
	t.marks = append(t.marks, m)
}

// dropMarks forgets rows that may be purged before long.
func (t *tail) dropMarks(now time.Time) {
	t.marks = slices.DeleteFunc(t.marks, func(m mark) bool {
		return now.Sub(m.since) > markLife
	})
}

// checkMarks returns ErrChangesMissed if a row that was told is not there any
// more, or is another one: a standby took over that lacked it. So what was
// told of it is not true any more, and other rows may have been given ids that
// seem old. The sequence alone does not tell: PostgreSQL writes it to the log
// 32 numbers ahead, so that a standby without the last rows seems not to be
// behind. found is the time of those that are there, by id.
func (t *tail) checkMarks(found map[int64]int64) error {
	for _, m := range t.marks {
		if madeAt, ok := found[m.id]; !ok || madeAt != m.madeAt {
			return fmt.Errorf("%w: change %d is gone: a standby without the last ones took over", ErrChangesMissed, m.id)
		}
	}
	return nil
}

// closeGaps gives up ids whose transactions were rolled back.
func (t *tail) closeGaps(now time.Time) {
	for id, since := range t.gaps {
		if now.Sub(since) > gapLife {
			delete(t.gaps, id)
		}
	}
}

type changeRow struct {
	id, madeAt int64
	age        time.Duration
	changes    []Change
}

// readChanges returns what is new, and ErrChangesMissed if what was told is
// gone: by its rows, or because the sequence is behind them.
func (p *postgresServer) readChanges(ctx context.Context) (found []changeRow, err error) {
	ctx, cancel := p.call(ctx)
	defer cancel()
	t := p.tail
	t.dropMarks(time.Now())
	gaps := slices.AppendSeq(make([]int64, 0, len(t.gaps)), maps.Keys(t.gaps))
	marks := make([]int64, len(t.marks))
	for i, m := range t.marks {
		marks[i] = m.id
	}
	there := make(map[int64]int64, len(marks))
	rows, err := p.pool.Query(ctx, `SELECT `+pgLastID+`, c.id, c.made_at, `+pgNow+` - c.made_at, c.data FROM changes_id_seq s LEFT JOIN
		((SELECT id, made_at, data FROM changes WHERE id > $1 OR id = ANY ($2) ORDER BY id LIMIT $3)
		UNION ALL SELECT id, made_at, NULL FROM changes WHERE id = ANY ($4)) c ON true ORDER BY c.id`,
		t.last, gaps, tailPage, marks)
	err = pgEachRow(rows, err, func(rows scanner) error {
		var end int64
		var id, madeAt, age *int64 // nil: there is no row
		var data []byte            // nil: the row was told
		if err := rows.Scan(&end, &id, &madeAt, &age, &data); err != nil {
			return err
		}
		if end < t.last {
			return fmt.Errorf("%w: they end at %d, behind %d: a standby without the last ones took over", ErrChangesMissed, end, t.last)
		}
		switch {
		case id == nil:
			return nil
		case data == nil:
			there[*id] = *madeAt
			return nil
		}
		changes, err := readWires(data)
		if err != nil {
			return fmt.Errorf("read change %d: %w", *id, err)
		}
		found = append(found, changeRow{*id, *madeAt, time.Duration(*age) * time.Millisecond, changes})
		return nil
	})
	if err == nil {
		err = t.checkMarks(there)
	}
	return found, err
}

// readWires reads the changes of a row that this program knows.
func readWires(data []byte) (changes []Change, err error) {
	var wires []wire
	if err := json.Unmarshal(data, &wires); err != nil {
		return nil, err
	}
	for _, w := range wires {
		if c, known := w.change(); known {
			changes = append(changes, c)
		}
	}
	return changes, nil
}
