package registry

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
)

// scan implements database. It talks to the driver itself: through
// database/sql, which is what every other query does, a row takes twice the
// time, and a relay reads a million of them when it starts.
func (f *sqliteFile) scan(ctx context.Context, add addEntry) error {
	conn, err := f.readers.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() // gives it back to the pool
	err = eachRaw(ctx, conn, scanQuery, func(row []driver.Value) error {
		org, _ := row[0].(int64) // what is of another type is empty, and refused as that
		mailbox, _ := row[1].([]byte)
		app, _ := row[2].([]byte)
		token, _ := row[3].([]byte)
		registered, _ := row[4].(int64)
		quarantine, _ := row[5].([]byte)
		return add(org, mailbox, app, token, registered, quarantine)
	})
	// The pages it read are not asked for again soon.
	_, errShrink := conn.ExecContext(context.WithoutCancel(ctx), "PRAGMA shrink_memory")
	return errors.Join(err, errShrink)
}

// eachRaw calls fn with the rows of a query, whose values are lent until the
// next one.
func eachRaw(ctx context.Context, conn *sql.Conn, query string, fn func(row []driver.Value) error) error {
	return conn.Raw(func(c any) error {
		conn, ok := c.(driver.QueryerContext)
		if !ok {
			return fmt.Errorf("driver's connection is a %T", c)
		}
		// The driver would look after ctx with every row; eachDriverRow does now and then.
		rows, err := conn.QueryContext(context.WithoutCancel(ctx), query, nil)
		if err != nil {
			return err
		}
		return errors.Join(eachDriverRow(ctx, rows, fn), rows.Close())
	})
}

func eachDriverRow(ctx context.Context, rows driver.Rows, fn func(row []driver.Value) error) error {
	row := make([]driver.Value, len(rows.Columns()))
	for n := 0; ; n++ {
		err := rows.Next(row)
		if errors.Is(err, io.EOF) {
			return ctx.Err()
		}
		if err == nil {
			err = fn(row)
		}
		if err == nil && n%scanBatch == 0 {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}
