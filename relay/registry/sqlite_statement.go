package registry

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

var sqliteDialect = dialect{
	// It would go through all that the organization has there.
	byDevice: " INDEXED BY removed_subscriptions_device",

	// The join's order is forced: without it SQLite may walk through the whole table.
	look: func(table, fits string) string { return "CROSS JOIN " + table + " s ON " + fits },

	clock: `CAST(unixepoch('subsec') * 1000000 AS INTEGER)`,
	// OR FAIL spares the statement the means to undo itself alone: the whole
	// transaction is rolled back.
	putSubscriptions: `INSERT OR FAIL INTO subscriptions (organization_id, mailbox, app, token, created_at, registered_at)
		SELECT organization_id, mailbox, app, token, created_at, $1 FROM k WHERE true`,
}

// partSizes are the numbers of rows of k that one statement takes, smallest
// first. Few sizes make few statements to prepare.
var partSizes = [...]int{1, 16, 256}

// parts calls fn with the sizes and positions of parts of n rows. A query's last part
// may be larger than what is left: empty rows fit nothing and cost next to
// nothing.
func parts(n int, fill bool, fn func(size, first int) error) error {
	for first := 0; first < n; {
		which := 0
		for which < len(partSizes)-1 && (partSizes[which+1] <= n-first || fill && partSizes[which] < n-first) {
			which++
		}
		if err := fn(partSizes[which], first); err != nil {
			return err
		}
		first += partSizes[which]
	}
	return nil
}

// statements are prepared ones, by their text and the size of their k.
type statements map[sizedQuery]*sql.Stmt

type sizedQuery struct {
	query   string
	columns *columns // of k; nil: no k
	size    int      // rows of k
}

// preparer prepares on a connection, or on any of several.
type preparer interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// prepare returns the prepared statement of s for a size of its k. Texts are
// constants, or made from few parts, so there are few.
func (ss statements) prepare(ctx context.Context, on preparer, s statement, size int) (*sql.Stmt, error) {
	key := sizedQuery{query: s.query, size: size}
	if s.k != nil {
		key.columns = s.k.columns
	}
	if stmt := ss[key]; stmt != nil {
		return stmt, nil
	}
	query := s.query
	if s.k != nil {
		query = s.withValues(size)
	}
	stmt, err := on.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	ss[key] = stmt
	return stmt, nil
}

// withValues returns the query with k, whose values follow the arguments.
func (s statement) withValues(rows int) string {
	row := "(" + strings.Repeat("?, ", len(s.k.columns.kinds)) + "?), "
	values := strings.TrimSuffix(strings.Repeat(row, rows), ", ")
	first := fmt.Sprintf("(?%d", len(s.args)+1) // an argument's number goes on from the one before
	return `WITH k (` + s.k.columns.names + `, i) AS (VALUES ` + first + strings.TrimPrefix(values, "(?") + `) ` + s.query
}

// part returns the arguments of a run of s with size rows of k, from the first
// on; rows beyond its end are empty.
func (s statement) part(size, first int) []any {
	width := len(s.k.columns.kinds)
	args := make([]any, len(s.args), len(s.args)+size*(width+1))
	copy(args, s.args)
	for i := first; i < first+size; i++ {
		if i < s.k.rows() {
			args = append(args, s.k.values[i*width:(i+1)*width]...)
		} else {
			args = append(args, make([]any, width)...)
		}
		args = append(args, int64(i))
	}
	return args
}

// run does a statement in all its parts with what prepare returns.
func (s statement) run(ctx context.Context, prepare func(s statement, size int) (*sql.Stmt, error)) error {
	if s.k == nil {
		return s.runPart(ctx, prepare, 0, s.args)
	}
	return parts(s.k.rows(), s.each != nil, func(size, first int) error {
		return s.runPart(ctx, prepare, size, s.part(size, first))
	})
}

func (s statement) runPart(ctx context.Context, prepare func(s statement, size int) (*sql.Stmt, error), size int, args []any) error {
	stmt, err := prepare(s, size)
	if err != nil {
		return err
	}
	if s.each != nil {
		rows, err := stmt.QueryContext(ctx, args...)
		return eachRow(rows, err, s.each)
	}
	result, err := stmt.ExecContext(ctx, args...)
	if err != nil || s.done == nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil {
		s.done(n)
	}
	return err
}

// eachRow calls fn for each row and closes rows; err is the query's.
func eachRow(rows *sql.Rows, err error, fn func(scanner) error) error {
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
