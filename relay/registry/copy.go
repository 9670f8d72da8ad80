package registry

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ErrCopyDiffers: the target of a copy holds something that is not from its
// source.
var ErrCopyDiffers = errors.New("target differs from source")

// Copied says what is in both databases after a copy.
type Copied struct {
	Table    string
	Rows     int64 // in the source, and in the target
	New      int64 // of them, copied now
	Checksum [sha256.Size]byte
}

// Copy copies a whole registry into one that is empty, or that an interrupted
// Copy from the same source left, ids and times included. Then it reads both and
// compares them, row by row; anything else is ErrCopyDiffers. tell is called
// with each table that is done. Nobody may change either meanwhile.
func Copy(ctx context.Context, from *SQLite, to *Postgres, tell func(Copied)) error {
	for _, t := range copyTables {
		if err := t.mayResume(ctx, from, to); err != nil {
			return err
		}
		n, err := t.copy(ctx, from, to)
		if err != nil {
			return fmt.Errorf("copy %s: %w", t.name, gone(err))
		}
		done, err := t.verify(ctx, from, to)
		if err != nil {
			return fmt.Errorf("verify %s: %w", t.name, gone(err))
		}
		done.New = n
		tell(done)
	}
	var last int64 // ids of organizations that were removed must not come again
	err := from.readers.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'organizations'`).Scan(&last)
	if err != nil || last == 0 {
		return err
	}
	_, err = to.pool.Exec(ctx, `SELECT setval(pg_get_serial_sequence('organizations', 'id'), $1)`, last)
	return gone(err)
}

// copyTable is a table that both databases have. The key's columns come first.
type copyTable struct {
	name    string
	key     int
	columns []copyColumn
}

// copyColumn is a column, with its type in PostgreSQL. In Go its values are
// int64, []byte or nil.
type copyColumn struct {
	name, kind string
	text       bool // in SQLite
}

func integer(name string) copyColumn { return copyColumn{name, "bigint", false} }
func blob(name string) copyColumn    { return copyColumn{name, "bytea", false} }
func bytesOf(name string) copyColumn { return copyColumn{name, "bytea", true} }
func text(name string) copyColumn    { return copyColumn{name, "text", true} }

var copyTables = []copyTable{
	{"organizations", 1, []copyColumn{integer("id"), text("name"), {"enabled", "boolean", false}, text("apps"), integer("max_mailboxes"),
		integer("max_subscriptions"), integer("max_streams"), text("metadata_url"), integer("created_at"), integer("mailboxes"), integer("subscriptions")}},
	{"credentials", 1, []copyColumn{text("id"), integer("organization_id"), blob("certificate"), blob("x5t"), blob("key_sha256"),
		integer("start_at"), integer("end_at"), integer("created_at"), integer("last_used_at")}},
	{"removed_credentials", 2, []copyColumn{integer("organization_id"), blob("certificate_sha256"), integer("ends_at")}},
	{"subscriptions", 4, []copyColumn{integer("organization_id"), bytesOf("mailbox"), bytesOf("app"), blob("token"),
		integer("created_at"), integer("registered_at")}},
	{"removed_subscriptions", 4, []copyColumn{integer("organization_id"), bytesOf("mailbox"), bytesOf("app"), blob("token"),
		integer("created_at"), integer("registered_at"), integer("removed_at"), bytesOf("reason")}},
}

// list joins what f makes of columns.
func (t copyTable) list(columns []copyColumn, f func(copyColumn) string) string {
	parts := make([]string, len(columns))
	for i, c := range columns {
		parts[i] = f(c)
	}
	return strings.Join(parts, ", ")
}

// order orders by the key, in the order of bytes; direction is DESC or empty.
func (t copyTable) order(direction string) string {
	return t.list(t.columns[:t.key], func(c copyColumn) string {
		if c.kind == "text" {
			return c.name + ` COLLATE "C" ` + direction
		}
		return c.name + " " + direction
	})
}

// source returns the rows of the source after a key; nil: all.
func (t copyTable) source(ctx context.Context, from *SQLite, after []any, limit int, fn func(row []any) error) error {
	query := `SELECT ` + t.list(t.columns, func(c copyColumn) string {
		if c.text {
			return "CAST(" + c.name + " AS BLOB)"
		}
		return c.name
	}) + ` FROM ` + t.name
	key := t.list(t.columns[:t.key], func(c copyColumn) string { return c.name })
	if after != nil {
		query += ` WHERE (` + key + `) > (` + t.list(t.columns[:t.key], func(c copyColumn) string {
			if c.text {
				return "CAST(? AS TEXT)"
			}
			return "?"
		}) + `)`
	}
	rows, err := from.readers.QueryContext(ctx, query+fmt.Sprintf(` ORDER BY %s LIMIT %d`, key, limit), after...)
	return eachRow(rows, err, func(rows *sql.Rows) error {
		row, dest := make([]any, len(t.columns)), make([]any, len(t.columns))
		for i := range row {
			dest[i] = &row[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		return fn(row)
	})
}

// target returns the rows of the target in an order.
func (t copyTable) target(ctx context.Context, to *Postgres, order string, fn func(row []any) error) error {
	query := `SELECT ` + t.list(t.columns, func(c copyColumn) string {
		switch c.kind {
		case "text":
			return "convert_to(" + c.name + ", 'UTF8')"
		case "boolean":
			return c.name + "::int::bigint"
		}
		return c.name
	}) + ` FROM ` + t.name + ` ORDER BY ` + order
	rows, err := to.pool.Query(ctx, query)
	return pgEachRow(rows, err, func(rows pgx.Rows) error {
		row, err := rows.Values()
		if err != nil {
			return err
		}
		return fn(row)
	})
}

// mayResume refuses a target that has organizations which the source has not.
// The rows of other tables belong to organizations, and verify sees them.
func (t copyTable) mayResume(ctx context.Context, from *SQLite, to *Postgres) error {
	if t.name != "organizations" {
		return nil
	}
	known := make(map[string]bool)
	err := t.source(ctx, from, nil, -1, func(row []any) error {
		known[fmt.Sprintf("%d %s", row[0], row[1])] = true
		return nil
	})
	if err != nil {
		return err
	}
	return gone(t.target(ctx, to, t.order(""), func(row []any) error {
		if name := fmt.Sprintf("%d %s", row[0], row[1]); !known[name] {
			return fmt.Errorf("%w: it has an organization %s, so it is in use or belongs to another source", ErrCopyDiffers, name)
		}
		return nil
	}))
}

// copyBatch is the number of rows in a transaction of a copy.
const copyBatch = 10000

// copy copies what follows the last row of the target.
func (t copyTable) copy(ctx context.Context, from *SQLite, to *Postgres) (n int64, err error) {
	var after []any
	stop := errors.New("one is enough")
	err = t.target(ctx, to, t.order("DESC")+" LIMIT 1", func(row []any) error {
		after = row[:t.key]
		return stop
	})
	if err != nil && !errors.Is(err, stop) {
		return 0, err
	}
	for {
		var batch [][]any
		err := t.source(ctx, from, after, copyBatch, func(row []any) error { batch = append(batch, row); return nil })
		if err != nil {
			return n, err
		}
		if len(batch) > 0 {
			if err := t.insert(ctx, to, batch); err != nil {
				return n, err
			}
			n += int64(len(batch))
			after = batch[len(batch)-1][:t.key]
		}
		if len(batch) < copyBatch {
			return n, nil
		}
	}
}

func (t copyTable) insert(ctx context.Context, to *Postgres, batch [][]any) error {
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = c.name
	}
	_, err := to.pool.CopyFrom(ctx, pgx.Identifier{t.name}, names, pgx.CopyFromSlice(len(batch), func(i int) ([]any, error) {
		row := make([]any, len(t.columns))
		for j, c := range t.columns {
			row[j] = c.postgres(batch[i][j])
		}
		return row, nil
	}))
	return err
}

// postgres returns the value as PostgreSQL's type wants it.
func (c copyColumn) postgres(v any) any {
	switch value := v.(type) {
	case []byte:
		if c.kind == "text" {
			return string(value)
		}
	case int64:
		if c.kind == "boolean" {
			return value != 0
		}
	case nil:
		if c.kind == "bytea" {
			return []byte{} // the driver's empty blob
		}
	}
	return v
}

// verify reads both tables and compares them.
func (t copyTable) verify(ctx context.Context, from *SQLite, to *Postgres) (Copied, error) {
	source, target := newTableSum(t), newTableSum(t)
	if err := t.source(ctx, from, nil, -1, source.add); err != nil {
		return Copied{}, err
	}
	if err := t.target(ctx, to, t.order(""), target.add); err != nil {
		return Copied{}, err
	}
	c := Copied{Table: t.name, Rows: source.rows}
	source.hash.Sum(c.Checksum[:0])
	if other := target.hash.Sum(nil); source.rows != target.rows || string(other) != string(c.Checksum[:]) {
		return c, fmt.Errorf("%w: %d rows with checksum %.8x, in the target %d with %.8x", ErrCopyDiffers, source.rows, c.Checksum, target.rows, other)
	}
	return c, nil
}

// tableSum is a checksum over the rows of a table in the order of its key.
type tableSum struct {
	table copyTable
	hash  hash.Hash
	rows  int64
}

func newTableSum(t copyTable) *tableSum { return &tableSum{table: t, hash: sha256.New()} }

func (s *tableSum) add(row []any) error {
	s.rows++
	var b []byte
	for i, v := range row {
		switch v := v.(type) {
		case int64:
			b = binary.AppendVarint(append(b, 'i'), v)
		case []byte:
			b = append(binary.AppendUvarint(append(b, 'b'), uint64(len(v))), v...)
		case nil:
			if s.table.columns[i].kind == "bytea" {
				b = append(b, 'b', 0)
			} else {
				b = append(b, 'n')
			}
		default:
			return fmt.Errorf("column %s holds a %T", s.table.columns[i].name, v)
		}
	}
	_, _ = s.hash.Write(b) // never fails
	return nil
}
