package registry

import (
	"bytes"
	"context"
	"database/sql"
)

// Where a device of an app is, is asked with every registration, and hashes come
// in no order: of a large index each new one touches another page, and pages
// are what a registry writes. So the index is in two parts. New entries go to
// a table in memory, and to the end of a log from which that is read again when
// the file is opened; when they are many enough that most pages of the large
// table have some, they go there, in its order. What a row costs then does not
// grow with their number.
//
// Entries are hints: who follows one looks whether the mailbox has the device.
// An entry too many, as the log may bring back, does no harm.

const sqliteMemory = `
	ATTACH ':memory:' AS recent;
	CREATE TABLE recent.devices (
		organization_id INTEGER NOT NULL,
		device          INTEGER NOT NULL,
		mailbox         BLOB    NOT NULL,
		PRIMARY KEY (organization_id, device, mailbox)
	) STRICT, WITHOUT ROWID;`

// findDevice returns the query of dialect.findDevices for one of the two tables.
func findDevice(table string) string {
	return `SELECT k.i, s.mailbox, s.created_at,
		(SELECT count(*) FROM subscriptions c WHERE c.organization_id = s.organization_id AND c.mailbox = s.mailbox)
		FROM k CROSS JOIN ` + table + ` d ON d.organization_id = $1 AND d.device = k.device
		CROSS JOIN subscriptions s ON s.organization_id = $1 AND s.mailbox = d.mailbox AND s.app = k.app AND s.token = k.token`
}

// dropDevice returns the statement that deletes the entries of k.
func dropDevice(table string) string {
	return `DELETE FROM ` + table + ` WHERE (organization_id, device, mailbox) IN (SELECT organization_id, device, mailbox FROM k)`
}

const (
	putRecent = `INSERT OR FAIL INTO recent.devices (organization_id, device, mailbox) SELECT organization_id, device, mailbox FROM k WHERE true ON CONFLICT DO NOTHING`
	logRecent = `INSERT OR FAIL INTO devices_log (organization_id, device, mailbox) SELECT organization_id, device, mailbox FROM k`
)

// Bounds of the table in memory: its share of all entries, and numbers of them.
// A million takes some 60 MB, and a second to read again.
const (
	recentShare = 8
	leastRecent = 50_000
	mostRecent  = 1_000_000
	// mergeStep is how many go to the large table in one transaction, so that
	// other writers wait for some tenths of a second.
	mergeStep = 50_000
)

// openRecent makes the table in memory, from the log. A connection that was used
// before has it.
func openRecent(ctx context.Context, conn *sql.Conn) error {
	var has bool
	err := conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pragma_database_list WHERE name = 'recent')`).Scan(&has)
	if err != nil || has {
		return err
	}
	if _, err := conn.ExecContext(ctx, sqliteMemory); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, `INSERT INTO recent.devices SELECT organization_id, device, mailbox FROM devices_log WHERE true ON CONFLICT DO NOTHING`)
	return err
}

// mergeRecent moves what is in memory to the large table, step by step, if it is
// too much. Changes that come between are moved, too.
func (f *sqliteFile) mergeRecent(ctx context.Context) error {
	many, err := f.manyRecent(ctx)
	for more := many; more && err == nil; {
		err = f.transact(ctx, func(t *tx) (err error) {
			more, err = t.mergeStep()
			return err
		})
	}
	return err
}

func (f *sqliteFile) manyRecent(ctx context.Context) (many bool, err error) {
	var logged, all int64
	err = f.query(ctx, `SELECT coalesce(max(rowid), 0) FROM devices_log`, nil, func(row scanner) error { return row.Scan(&logged) })
	if err != nil || logged <= leastRecent {
		return false, err
	}
	err = f.query(ctx, `SELECT coalesce(sum(subscriptions), 0) FROM organizations`, nil, func(row scanner) error { return row.Scan(&all) })
	return logged > min(max(all/recentShare, leastRecent), mostRecent), err
}

// mergeStep moves the first entries in memory, and reports whether there are more.
func (t *tx) mergeStep() (more bool, err error) {
	const upTo = ` WHERE (organization_id, device, mailbox) <= ($1, $2, $3)`
	var last []any
	err = t.each(`SELECT organization_id, device, mailbox FROM recent.devices ORDER BY organization_id, device, mailbox LIMIT 1 OFFSET $1`,
		[]any{int64(mergeStep - 1)}, func(row scanner) error {
			var org, device int64
			var mailbox raw
			err := row.Scan(&org, &device, &mailbox)
			last = []any{org, device, bytes.Clone(mailbox)}
			return err
		})
	if err != nil {
		return false, err
	}
	const merge = `INSERT INTO devices SELECT organization_id, device, mailbox FROM recent.devices`
	if last == nil {
		t.queue(statement{query: merge + ` WHERE true ON CONFLICT DO NOTHING`})
		t.queue(statement{query: `DELETE FROM recent.devices`})
		t.queue(statement{query: `DELETE FROM devices_log`})
		return false, nil
	}
	t.queue(statement{query: merge + upTo + ` ORDER BY organization_id, device, mailbox ON CONFLICT DO NOTHING`, args: last})
	t.queue(statement{query: `DELETE FROM recent.devices` + upTo, args: last})
	return true, nil
}
