package registry

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"

	"github.com/jackc/pgx/v5"

	"badgerelay/apns"
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
			return fmt.Errorf("copy %s: %w", t.name, wrapUnavailable(err))
		}
		done, err := t.verify(ctx, from, to)
		if err != nil {
			return fmt.Errorf("verify %s: %w", t.name, wrapUnavailable(err))
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
	return wrapUnavailable(err)
}

// copyTable is a table that both databases have. The key's columns come first.
type copyTable struct {
	name    string
	key     int
	columns []column
}

func bigint(name string) column  { return column{name, "bigint"} }
func bytea(name string) column   { return column{name, "bytea"} }
func text(name string) column    { return column{name, "text"} }
func boolean(name string) column { return column{name, "boolean"} }

var copyTables = []copyTable{
	{"organizations", 1, []column{bigint("id"), text("name"), boolean("enabled"), text("apps"), bigint("max_mailboxes"),
		bigint("max_subscriptions"), bigint("max_streams"), text("metadata_url"), bigint("created_at"), bigint("removed_at"),
		boolean("purging"), bytea("sums_after"), bigint("mailboxes"), bigint("subscriptions")}},
	{"credentials", 1, []column{text("id"), bigint("organization_id"), bytea("certificate"), bytea("x5t"), bytea("key_sha256"),
		bigint("start_at"), bigint("end_at"), bigint("created_at"), bigint("last_used_at")}},
	{"removed_credentials", 2, []column{bigint("organization_id"), bytea("certificate_sha256"), bigint("ends_at")}},
	{"subscriptions", 4, []column{bigint("organization_id"), bytea("mailbox"), bytea("app"), bytea("token"),
		bigint("created_at"), bigint("registered_at"), bytea("quarantine")}},
	{"removed_subscriptions", 4, []column{bigint("organization_id"), bytea("mailbox"), bytea("app"), bytea("token"), bigint("device"),
		bigint("created_at"), bigint("registered_at"), bigint("removed_at"), bytea("reason"), boolean("superseded")}},
	{"shared_devices", 2, []column{bytea("app"), bytea("token"), bigint("sequence"), bigint("accepted"), bigint("answered"), bytea("refusal"),
		boolean("summed"), text("pusher"), bigint("push_again_at"), bigint("due_at")}},
	{"shared_parts", 4, []column{bytea("app"), bytea("token"), bigint("organization_id"), bytea("mailbox"), boolean("disabled"),
		bigint("joined_at"), bigint("state"), bigint("count"), bigint("newest_count"), bigint("sequence"),
		bigint("received_at"), bigint("stored_at")}},
	{"removal_budgets", 1, []column{bytea("app"), bigint("allowed"), bigint("used"), bigint("last_at")}},
	{"app_generations", 2, []column{bytea("app"), bigint("generation"), bigint("accepted")}},
}

// column is a name and a type of PostgreSQL.
type column struct{ name, kind string }

// names lists columns for SQL.
func (t copyTable) names(columns []column) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	return strings.Join(names, ", ")
}

// order orders by the key, in the order of bytes; direction is DESC or empty.
func (t copyTable) order(direction string) string {
	parts := make([]string, t.key)
	for i, c := range t.columns[:t.key] {
		if parts[i] = c.name + " " + direction; c.kind == "text" {
			parts[i] = c.name + ` COLLATE "C" ` + direction
		}
	}
	return strings.Join(parts, ", ")
}

// source returns the rows of the source after a key; nil: all. Values are int64,
// bool, []byte, string or nil, as the columns' types say.
func (t copyTable) source(ctx context.Context, from *SQLite, after []any, limit int, fn func(row []any) error) error {
	query, key := `SELECT `+t.names(t.columns)+` FROM `+t.name, t.names(t.columns[:t.key])
	if after != nil {
		query += ` WHERE (` + key + `) > (?` + strings.Repeat(", ?", t.key-1) + `)`
	}
	rows, err := from.readers.QueryContext(ctx, query+fmt.Sprintf(` ORDER BY %s LIMIT %d`, key, limit), after...)
	return eachRow(rows, err, func(one scanner) error {
		row, dest := make([]any, len(t.columns)), make([]any, len(t.columns))
		for i := range row {
			dest[i] = &row[i]
		}
		if err := one.Scan(dest...); err != nil {
			return err
		}
		for i, c := range t.columns {
			switch value := row[i].(type) {
			case int64:
				if c.kind == "boolean" {
					row[i] = value != 0
				}
			case []byte:
				if value == nil {
					row[i] = []byte{} // the driver's empty blob, which is no NULL
				}
			case nil:
				if c.kind == "bytea" {
					row[i] = []byte{} // the driver's empty blob
				}
			}
		}
		return fn(row)
	})
}

// target returns the rows of the target in an order, as source does.
func (t copyTable) target(ctx context.Context, to *Postgres, order string, fn func(row []any) error) error {
	rows, err := to.pool.Query(ctx, `SELECT `+t.names(t.columns)+` FROM `+t.name+` ORDER BY `+order)
	return pgEachRow(rows, err, func(scanner) error {
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
	return wrapUnavailable(t.target(ctx, to, t.order(""), func(row []any) error {
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
	var names []string
	for _, c := range t.columns {
		names = append(names, c.name)
	}
	if t.name == "subscriptions" { // PostgreSQL has the hash of the device beside it
		names = append(names, "device")
		for i, row := range batch {
			d, err := deviceOf(row[2], row[3])
			if err != nil {
				return err
			}
			batch[i] = append(row[:len(row):len(row)], deviceHash(d))
		}
	}
	_, err := to.pool.CopyFrom(ctx, pgx.Identifier{t.name}, names, pgx.CopyFromRows(batch))
	return err
}

// deviceOf reads the columns app and token.
func deviceOf(app, token any) (device, error) {
	name, _ := app.([]byte) // what is of another type is empty, and refused as that
	raw, _ := token.([]byte)
	d, err := apns.DeviceTokenFromBytes(raw)
	return device{string(name), d}, err
}

// verify reads both tables and compares them.
func (t copyTable) verify(ctx context.Context, from *SQLite, to *Postgres) (Copied, error) {
	source, target := newTableSum(), newTableSum()
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
	hash hash.Hash
	rows int64
}

func newTableSum() *tableSum { return &tableSum{hash: sha256.New()} }

func (s *tableSum) add(row []any) error {
	s.rows++
	var b []byte
	for _, v := range row {
		switch v := v.(type) {
		case int64:
			b = binary.AppendVarint(append(b, 'i'), v)
		case bool:
			b = append(b, 'b')
			if v {
				b = append(b, 1)
			}
		case []byte:
			b = append(binary.AppendUvarint(append(b, 's'), uint64(len(v))), v...)
		case string:
			b = append(binary.AppendUvarint(append(b, 's'), uint64(len(v))), v...)
		case nil:
			b = append(b, 'n')
		default:
			return fmt.Errorf("a column holds a %T", v)
		}
	}
	_, _ = s.hash.Write(b) // never fails
	return nil
}
