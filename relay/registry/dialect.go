package registry

import (
	"context"
	"fmt"
	"strings"

	"badgerelay/relay"
)

// database is what SQLite and PostgreSQL do for the store, each in its way.
type database interface {
	// dialect returns the words in which statements differ.
	dialect() *dialect
	// read runs a query outside a transaction.
	read(ctx context.Context, s statement) error
	// write runs fn in a transaction that nobody else's change of the same
	// organization comes between, and after the commit tells the transaction's
	// changes. An error of fn rolls back. ctx bounds the waiting for the
	// database, not what has begun.
	write(ctx context.Context, fn func(*tx) error) error
	// scan calls add with the rows of scanQuery, which are of one state.
	scan(ctx context.Context, add addEntry) error
	// forget purges what only this database keeps, up to a bound at a time.
	forget(ctx context.Context) error
	// forgetOrganization deletes what only this database keeps of an organization
	// that is being purged, in parts.
	forgetOrganization(ctx context.Context, org relay.OrganizationID) error
	// hintSums tells the other relays, at once or never, that a sum of a shared
	// device is wanted or was accepted.
	hintSums()
	// unavailable makes err wrap ErrUnavailable if the database could not be
	// used, which may pass.
	unavailable(err error) error
	// close waits for the calls in progress.
	close() error
}

// dialect is how a database says what both can do. What is not in here, both
// understand as it is written, arguments by number ($1) included.
type dialect struct {
	// lock ends a SELECT of organizations that the transaction goes on to
	// change, or whose subscriptions it does.
	lock string

	// lockCredentials has one credential added at a time; empty: they are anyway.
	lockCredentials string

	// look joins k with the rows of a table that fit it, by the table's index
	// for each row of k, whatever the planner thinks of the table's size. The
	// table's alias is s.
	look func(table, fits string) string

	// putSubscriptions inserts the rows of k, which has putColumns, registered at
	// $1. A conflict may be said to be a renewal.
	putSubscriptions string

	// onOthers goes on a condition on a subscription s: or its device is on
	// another mailbox. Empty: that can't be asked outside a transaction.
	onOthers string

	// byDevice follows removed_subscriptions where these are found by device, if the
	// planner has to be told.
	byDevice string

	// clock is the database's, in microseconds since 1970.
	clock string
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

// statement is one, with its arguments and what becomes of its result.
type statement struct {
	query string
	args  []any // $1 and so on: int64, []byte, string or bool
	// k is a table of rows that the statement is about, which it knows under
	// that name. It may run several times, each with a part of them.
	k    *table
	each func(scanner) error // takes each row of the result; nil: there are none
	done func(rows int64)    // takes how many rows were changed; may be called with parts of them, may be nil
}

// table is rows that go to the database as a statement's arguments. Beside the
// columns it has i, the position of a row, from 0.
type table struct {
	columns *columns
	values  []any // row by row: int64, []byte or string, as the column's type says
}

// columns are those of a table.
type columns struct {
	kinds []string // types of PostgreSQL: bigint, bytea or text; SQLite takes the values for what they are
	names string   // as SQL lists them
}

// newColumns takes the names, each with its type after a space.
func newColumns(all ...string) *columns {
	c := &columns{}
	for i, one := range all {
		name, kind, _ := strings.Cut(one, " ")
		c.kinds = append(c.kinds, kind)
		if i > 0 {
			c.names += ", "
		}
		c.names += name
	}
	return c
}

// newTable makes an empty table with room for some rows.
func newTable(c *columns, room int) *table {
	return &table{columns: c, values: make([]any, 0, room*len(c.kinds))}
}

func (t *table) add(values ...any) { t.values = append(t.values, values...) }

func (t *table) rows() int { return len(t.values) / len(t.columns.kinds) }

// raw is bytes that the database lends until the next row.
type raw []byte

// Scan implements sql.Scanner.
func (r *raw) Scan(src any) error {
	switch v := src.(type) {
	case []byte:
		*r = v
	case nil:
		*r = nil
	default:
		return fmt.Errorf("column holds a %T", src)
	}
	return nil
}

// ScanBytes implements pgtype.BytesScanner.
func (r *raw) ScanBytes(v []byte) error {
	*r = v
	return nil
}
