package registry

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

var postgresDialect = dialect{
	lock: " FOR NO KEY UPDATE",

	// One key belongs to one organization, which no constraint can say.
	lockCredentials: `LOCK TABLE credentials IN SHARE ROW EXCLUSIVE MODE`,

	// The join is lateral and its inside can't be pulled up.
	look: func(table, fits string) string {
		return "CROSS JOIN LATERAL (SELECT s.* FROM " + table + " s WHERE " + fits + " OFFSET 0) s"
	},

	putSubscriptions: `INSERT INTO subscriptions (organization_id, mailbox, app, token, device, created_at, registered_at)
		SELECT organization_id, mailbox, app, token, device, created_at, $1 FROM k WHERE true`,
	onOthers: ` OR EXISTS (SELECT 1 FROM subscriptions o WHERE o.device = s.device AND o.app = s.app AND o.token = s.token
		AND (o.organization_id <> s.organization_id OR o.mailbox <> s.mailbox))`,
	clock: `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`,
}

// findDevices implements conn. Within the subquery nothing but the index by device
// fits.
func (c *pgConn) findDevices(org int64, k *table, each func(scanner) error) {
	c.queue(statement{k: k, args: []any{org}, each: each, query: `SELECT k.i, s.mailbox, s.created_at, s.registered_at,
		(SELECT count(*) FROM subscriptions c WHERE c.organization_id = s.organization_id AND c.mailbox = s.mailbox)
		FROM k CROSS JOIN LATERAL (SELECT * FROM subscriptions s WHERE s.device = k.device OFFSET 0) s
		WHERE s.organization_id = $1 AND s.app = k.app AND s.token = k.token`})
}

// findMailboxes implements conn, in the same way.
func (c *pgConn) findMailboxes(k *table, each func(scanner) error) {
	c.queue(statement{k: k, each: each, query: `SELECT k.i, s.organization_id, s.mailbox, s.created_at, s.registered_at, NOT o.enabled OR o.removed_at IS NOT NULL, length(s.quarantine) > 0
		FROM k CROSS JOIN LATERAL (SELECT * FROM subscriptions s WHERE s.device = k.device OFFSET 0) s
		JOIN organizations o ON o.id = s.organization_id WHERE s.app = k.app AND s.token = k.token`})
}

// moveDevices implements conn: the index is the table's own.
func (c *pgConn) moveDevices(_, _ *table) {}

// forPostgres returns the query with k, and the arguments with an array for each
// of its columns.
func (s statement) forPostgres() (string, []any) {
	if s.k == nil {
		return s.query, s.args
	}
	args := append(make([]any, 0, len(s.args)+len(s.k.columns.kinds)), s.args...)
	arrays := make([]string, len(s.k.columns.kinds))
	for i, kind := range s.k.columns.kinds {
		args = append(args, s.k.array(i))
		arrays[i] = fmt.Sprintf("$%d::%s[]", len(args), kind)
	}
	names := s.k.columns.names
	return `WITH k (` + names + `, i) AS (SELECT ` + names + `, i - 1 FROM unnest(` + strings.Join(arrays, ", ") + `)
		WITH ORDINALITY AS u (` + names + `, i)) ` + s.query, args
}

// array returns the values of a column.
func (t *table) array(column int) any {
	switch t.columns.kinds[column] {
	case "bigint":
		return arrayOf[int64](t, column)
	case "bytea":
		return arrayOf[[]byte](t, column)
	}
	return arrayOf[string](t, column)
}

func arrayOf[T any](t *table, column int) []T {
	values := make([]T, 0, t.rows())
	for i := column; i < len(t.values); i += len(t.columns.kinds) {
		value, _ := t.values[i].(T) // as the column says
		values = append(values, value)
	}
	return values
}

// read implements database.
func (p *postgresServer) read(ctx context.Context, s statement) error {
	ctx, cancel := p.call(ctx)
	defer cancel()
	query, args := s.forPostgres()
	rows, err := p.pool.Query(ctx, query, args...)
	return pgEachRow(rows, err, s.each)
}

// scan implements database. One statement sees one state, and its rows come as
// fast as they are taken.
func (p *postgresServer) scan(ctx context.Context, add addEntry) error {
	rows, err := p.pool.Query(ctx, scanQuery)
	return pgEachRow(rows, err, func(scanner) error {
		raw := rows.RawValues()
		return add(pgInt64(raw[0]), raw[1], raw[2], raw[3], pgInt64(raw[4]), raw[5])
	})
}

// pgInt64 reads a bigint as the server sends it.
func pgInt64(raw []byte) int64 { return int64(binary.BigEndian.Uint64(raw)) }

// pgEachRow calls fn for each row and closes rows; err is the query's.
func pgEachRow(rows pgx.Rows, err error, fn func(scanner) error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
