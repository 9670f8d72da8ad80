package registry

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
)

// driverConn is what scan needs of the driver's connection.
type driverConn interface {
	driver.QueryerContext
	driver.ExecerContext
}

// scan implements database. It talks to the driver itself: through
// database/sql, which is what every other query does, a row takes twice the
// time, and a relay reads a million of them when it starts.
func (f *sqliteFile) scan(ctx context.Context, add addEntry) error {
	conn, err := f.readers.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() // gives it back to the pool
	return conn.Raw(func(c any) error {
		conn, ok := c.(driverConn)
		if !ok {
			return fmt.Errorf("driver's connection is a %T", c)
		}
		// The driver would look after ctx with every row; scanRows does now and then.
		rows, err := conn.QueryContext(context.WithoutCancel(ctx), scanQuery, nil)
		if err != nil {
			return err
		}
		err = errors.Join(scanRows(ctx, rows, add), rows.Close())
		// The pages it read are not asked for again soon.
		_, errShrink := conn.ExecContext(context.WithoutCancel(ctx), "PRAGMA shrink_memory", nil)
		return errors.Join(err, errShrink)
	})
}

func scanRows(ctx context.Context, rows driver.Rows, add addEntry) error {
	row := make([]driver.Value, len(rows.Columns()))
	for n := 0; ; n++ {
		err := rows.Next(row)
		if errors.Is(err, io.EOF) {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		org, _ := row[0].(int64) // what is of another type is empty, and refused as that
		mailbox, _ := row[1].([]byte)
		app, _ := row[2].([]byte)
		token, _ := row[3].([]byte)
		registered, _ := row[4].(int64)
		quarantine, _ := row[5].([]byte)
		if err := add(org, mailbox, app, token, registered, quarantine); err != nil {
			return err
		}
		if n%scanBatch == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
