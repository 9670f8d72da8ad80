package registry

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// Where a device of an app is, is asked with every registration, and hashes come
// in no order: of a large index each new one touches another page, and pages
// are what a registry writes. So the index is in two parts. New entries go to
// a map in memory, and to the end of a log from which that is read again when
// the file is opened; when they are many enough that most pages of the large
// table have some, they go there, in its order. And what is in the large table
// is known to a filter, so that the devices that nobody has seen, of which an
// import is full, are not looked for there. What a row costs then does not grow
// with their number.
//
// Entries are hints: who follows one looks whether the mailbox has the device.
// An entry too many, as the log may bring back, does no harm.

// deviceIndex is the index of a file. It belongs to who has the writer's turn,
// save the filter.
type deviceIndex struct {
	// recent is what is not in the large table, by deviceHash: the log, without
	// what was dropped since. nil: to be read from it.
	recent  map[int64]places
	entries int // in recent
	mergeAt int // entries that are too many
	merging bool
	least   int         // leastRecent; tests lower it, and step
	step    int         // mergeStep
	due     atomic.Bool // whether they were after the last transaction; for everybody

	merged deviceFilter // the hashes of the large table
}

// places are the mailboxes of devices with one hash: of each its organization and
// length as uvarints, and its name. There are millions of these, and nearly all
// are one.
type places string

func (p places) add(org int64, mailbox []byte) places {
	b := binary.AppendUvarint([]byte(p), uint64(org))
	b = binary.AppendUvarint(b, uint64(len(mailbox)))
	return places(append(b, mailbox...))
}

func (p places) each(fn func(org int64, mailbox []byte)) {
	for b := []byte(p); len(b) > 0; {
		org, n := binary.Uvarint(b)
		size, m := binary.Uvarint(b[n:])
		name := b[n+m:]
		fn(int64(org), name[:size:size])
		b = name[size:]
	}
}

// put adds an entry, or does nothing if it is there.
func (x *deviceIndex) put(hash, org int64, mailbox []byte) {
	p := x.recent[hash]
	known := false
	p.each(func(o int64, m []byte) { known = known || o == org && string(m) == string(mailbox) })
	if !known {
		x.recent[hash] = p.add(org, mailbox)
		x.entries++
	}
}

func (x *deviceIndex) drop(hash, org int64, mailbox []byte) {
	var rest places
	x.recent[hash].each(func(o int64, m []byte) {
		if o == org && string(m) == string(mailbox) {
			x.entries--
		} else {
			rest = rest.add(o, m)
		}
	})
	if rest == "" {
		delete(x.recent, hash)
	} else {
		x.recent[hash] = rest
	}
}

func (x *deviceIndex) dropAll(hash int64) {
	x.recent[hash].each(func(int64, []byte) { x.entries-- })
	delete(x.recent, hash)
}

// load reads the log, if that is to be done.
func (x *deviceIndex) load(ctx context.Context, conn *sql.Conn) error {
	if x.recent != nil {
		return nil
	}
	x.recent, x.entries, x.mergeAt = make(map[int64]places), 0, x.least
	err := eachRaw(ctx, conn, `SELECT device, organization_id, mailbox FROM devices_log`, func(row []driver.Value) error {
		hash, _ := row[0].(int64) // as the table says
		org, _ := row[1].(int64)
		mailbox, _ := row[2].([]byte)
		x.put(hash, org, mailbox)
		return nil
	})
	var some bool
	if err == nil {
		err = conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM devices)`).Scan(&some)
	}
	if err != nil {
		x.recent = nil
		return err
	}
	if !some {
		x.merged.end(true)
	}
	return nil
}

// learnDelay keeps the reading of devices out of a relay's start, which has the
// subscriptions themselves to read.
const learnDelay = 30 * time.Second

// fillFilter fills the filter, if the file had devices when it was opened. That
// takes seconds for millions of them, beside the other work.
func (f *sqliteFile) fillFilter(ctx context.Context) error {
	if !f.index.merged.begin() {
		return nil
	}
	conn, err := f.readers.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() // gives it back to the pool
	err = eachRaw(ctx, conn, `SELECT device FROM devices`, func(row []driver.Value) error {
		hash, _ := row[0].(int64) // as the table says
		f.index.merged.add(hash)
		return nil
	})
	f.index.merged.end(err == nil)
	return err
}

const deviceFound = `SELECT k.at, s.mailbox, s.created_at, s.registered_at,
	(SELECT count(*) FROM subscriptions c WHERE c.organization_id = s.organization_id AND c.mailbox = s.mailbox) FROM k `

var (
	recentColumns = newColumns("at bigint", "organization_id bigint", "mailbox bytea", "app bytea", "token bytea")
	mergedColumns = newColumns("at bigint", "device bigint", "app bytea", "token bytea")
)

// findDevices implements conn.
func (c *sqliteConn) findDevices(org int64, k *table, each func(scanner) error) {
	x := &c.file.index
	recent, merged := newTable(recentColumns, 0), newTable(mergedColumns, 0)
	width := len(k.columns.kinds)
	for i := range k.rows() {
		row := k.values[i*width : (i+1)*width]
		hash, _ := row[0].(int64) // as deviceColumns say
		x.recent[hash].each(func(of int64, mailbox []byte) {
			if of == org {
				recent.add(int64(i), of, mailbox, row[1], row[2])
			}
		})
		if x.merged.mayHave(hash) {
			merged.add(int64(i), hash, row[1], row[2])
		}
	}
	c.over(recent, deviceFound+`CROSS JOIN subscriptions s
		ON s.organization_id = k.organization_id AND s.mailbox = k.mailbox AND s.app = k.app AND s.token = k.token`, each)
	c.over(merged, deviceFound+`CROSS JOIN devices d ON d.device = k.device AND d.organization_id = $1
		CROSS JOIN subscriptions s ON s.organization_id = d.organization_id AND s.mailbox = d.mailbox AND s.app = k.app AND s.token = k.token`, each, org)
}

const mailboxFound = `SELECT k.at, s.organization_id, s.mailbox, s.created_at, s.registered_at, NOT o.enabled OR o.removed_at IS NOT NULL, length(s.quarantine) > 0 FROM k `

// findMailboxes implements conn.
func (c *sqliteConn) findMailboxes(k *table, each func(scanner) error) {
	x := &c.file.index
	recent, merged := newTable(recentColumns, 0), newTable(mergedColumns, 0)
	width := len(k.columns.kinds)
	for i := range k.rows() {
		row := k.values[i*width : (i+1)*width]
		hash, _ := row[0].(int64) // as deviceColumns say
		x.recent[hash].each(func(of int64, mailbox []byte) { recent.add(int64(i), of, mailbox, row[1], row[2]) })
		if x.merged.mayHave(hash) {
			merged.add(int64(i), hash, row[1], row[2])
		}
	}
	c.over(recent, mailboxFound+`CROSS JOIN subscriptions s
		ON s.organization_id = k.organization_id AND s.mailbox = k.mailbox AND s.app = k.app AND s.token = k.token
		CROSS JOIN organizations o ON o.id = s.organization_id`, each)
	c.over(merged, mailboxFound+`CROSS JOIN devices d ON d.device = k.device
		CROSS JOIN subscriptions s ON s.organization_id = d.organization_id AND s.mailbox = d.mailbox AND s.app = k.app AND s.token = k.token
		CROSS JOIN organizations o ON o.id = s.organization_id`, each)
}

// over queues a query over the rows of k, if there are any.
func (c *sqliteConn) over(k *table, query string, each func(scanner) error, args ...any) {
	if k.rows() > 0 {
		c.queue(statement{query: query, args: args, k: k, each: each})
	}
}

// moveDevices implements conn.
func (c *sqliteConn) moveDevices(gone, come *table) {
	drop := newTable(indexColumns, 0)
	eachEntry(gone, func(hash, org int64, mailbox []byte) {
		if c.file.index.merged.mayHave(hash) {
			drop.add(hash, org, mailbox)
		}
	})
	if drop.rows() > 0 {
		c.queue(statement{k: drop, query: `DELETE FROM devices WHERE (device, organization_id, mailbox) IN (SELECT device, organization_id, mailbox FROM k)`})
	}
	if come.rows() > 0 {
		log := newTable(indexColumns, come.rows())
		eachEntry(come, func(hash, org int64, mailbox []byte) { log.add(hash, org, mailbox) })
		c.queue(statement{k: log, query: `INSERT OR FAIL INTO devices_log (device, organization_id, mailbox) SELECT device, organization_id, mailbox FROM k`})
	}
	x := &c.file.index
	c.committed = append(c.committed, func() {
		eachEntry(gone, x.drop)
		eachEntry(come, x.put)
	})
}

var indexColumns = newColumns("device bigint", "organization_id bigint", "mailbox bytea")

// eachEntry calls fn with the rows of a table that begins with organization_id,
// device and mailbox.
func eachEntry(t *table, fn func(hash, org int64, mailbox []byte)) {
	width := len(t.columns.kinds)
	for i := 0; i < len(t.values); i += width {
		org, _ := t.values[i].(int64)
		hash, _ := t.values[i+1].(int64)
		mailbox, _ := t.values[i+2].([]byte)
		fn(hash, org, mailbox)
	}
}

// Bounds of what is in memory: its share of all entries, and numbers of them.
// Two million take some 200 MB, and a second or two to read again.
const (
	recentShare = 4
	leastRecent = 50_000
	mostRecent  = 2_000_000
	// mergeStep is how many go to the large table in one transaction, so that
	// other writers wait for some tenths of a second.
	mergeStep = 50_000
)

// mergeRecent moves what is in memory to the large table, step by step, if it is
// too much. Changes may come between.
func (f *sqliteFile) mergeRecent(ctx context.Context) error {
	var hashes []int64
	var logged int64
	err := f.transact(ctx, func(t *tx, _ *sqliteConn) (err error) {
		hashes, logged, err = f.beginMerge(t)
		return err
	})
	if err != nil || hashes == nil {
		return err
	}
	defer f.endMerge()
	for len(hashes) > 0 && err == nil {
		part := hashes[:min(len(hashes), f.index.step)]
		hashes = hashes[len(part):]
		err = f.transact(ctx, func(t *tx, c *sqliteConn) error {
			c.mergeDevices(t, part)
			return nil
		})
	}
	if err != nil {
		return err // the log has it all
	}
	return f.transact(ctx, func(t *tx, _ *sqliteConn) error { return t.cutLog(logged) })
}

// endMerge lets the next one begin.
func (f *sqliteFile) endMerge() {
	<-f.writer.turn // for a moment, whatever has become of the file
	defer f.writer.give()
	f.index.merging = false
}

// beginMerge returns what to merge, in the order of the large table, and how far
// the log has it; nil: nothing.
func (f *sqliteFile) beginMerge(t *tx) (hashes []int64, logged int64, err error) {
	x := &f.index
	if x.merging || x.entries <= x.mergeAt {
		return nil, 0, nil
	}
	var all int64
	err = t.each(`SELECT coalesce(sum(subscriptions), 0), (SELECT coalesce(max(rowid), 0) FROM devices_log) FROM organizations`, nil,
		func(row scanner) error { return row.Scan(&all, &logged) })
	if err != nil {
		return nil, 0, err
	}
	if x.mergeAt = min(max(int(all/recentShare), f.index.least), mostRecent); x.entries <= x.mergeAt {
		return nil, 0, nil
	}
	x.merging = true
	return slices.Sorted(maps.Keys(x.recent)), logged, nil
}

// mergeDevices moves the entries of some hashes. Those of organizations that are
// gone for good are left behind.
func (c *sqliteConn) mergeDevices(t *tx, hashes []int64) {
	x := &c.file.index
	k := newTable(indexColumns, len(hashes))
	for _, hash := range hashes {
		x.recent[hash].each(func(org int64, mailbox []byte) { k.add(hash, org, mailbox) })
		x.merged.add(hash)
	}
	t.over(k, `INSERT OR FAIL INTO devices (device, organization_id, mailbox) SELECT device, organization_id, mailbox FROM k
		WHERE organization_id IN (SELECT id FROM organizations WHERE NOT purging) ON CONFLICT DO NOTHING`)
	c.committed = append(c.committed, func() {
		for _, hash := range hashes {
			x.dropAll(hash)
		}
	})
}

// cutLog deletes the log as far as it is merged.
func (t *tx) cutLog(logged int64) error {
	var last int64
	err := t.each(`SELECT coalesce(max(rowid), 0) FROM devices_log`, nil, func(row scanner) error { return row.Scan(&last) })
	if last == logged { // all of it at once costs next to nothing
		t.queue(statement{query: `DELETE FROM devices_log`})
	} else {
		t.queue(statement{query: `DELETE FROM devices_log WHERE rowid <= $1`, args: []any{logged}})
	}
	return err
}
