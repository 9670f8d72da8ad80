package registry

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
)

// scanBatch is the number of entries in a batch of Scan.
const scanBatch = 1024

// scanQuery casts the token, because the driver returns a text as a string that
// can be kept, and a blob as bytes that would have to be copied once more.
const scanQuery = `SELECT organization_id, mailbox, app, CAST(token AS TEXT), registered_at FROM subscriptions
	ORDER BY organization_id, mailbox`

// driverConn is what Scan needs of the driver's connection.
type driverConn interface {
	driver.QueryerContext
	driver.ExecerContext
}

// Scan implements relay.Subscriptions. It talks to the driver itself: through
// database/sql, which is what every other query does, a row takes twice the
// time, and a relay reads a million of them when it starts.
func (s *SQLite) Scan(ctx context.Context, fn func(batch []Entry) error) (err error) {
	defer s.done(opScan, time.Now(), &err)
	conn, err := s.readers.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() // gives it back to the pool
	return conn.Raw(func(c any) error {
		conn, ok := c.(driverConn)
		if !ok {
			return fmt.Errorf("driver's connection is a %T", c)
		}
		// The driver would look after ctx with every row; scan does per batch.
		rows, err := conn.QueryContext(context.WithoutCancel(ctx), scanQuery, nil)
		if err != nil {
			return err
		}
		err = errors.Join(scan(ctx, rows, fn), rows.Close())
		// The pages it read are not asked for again soon.
		_, errShrink := conn.ExecContext(context.WithoutCancel(ctx), "PRAGMA shrink_memory", nil)
		return errors.Join(err, errShrink)
	})
}

func scan(ctx context.Context, rows driver.Rows, fn func(batch []Entry) error) error {
	row := make([]driver.Value, len(rows.Columns()))
	batch := make([]Entry, 0, scanBatch)
	var last Entry
	for {
		err := rows.Next(row)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if last, err = scanEntry(row, last); err != nil {
			return err
		}
		if batch = append(batch, last); len(batch) < scanBatch {
			continue
		}
		if err := errors.Join(ctx.Err(), fn(batch)); err != nil {
			return err
		}
		batch = batch[:0]
	}
	if err := ctx.Err(); err != nil || len(batch) == 0 {
		return err
	}
	return fn(batch)
}

// scanEntry reads a row of scanQuery. What is as in the entry before shares its
// strings.
func scanEntry(row []driver.Value, last Entry) (Entry, error) {
	org, _ := row[0].(int64)
	mailbox, _ := row[1].(string)
	app, _ := row[2].(string)
	raw, _ := row[3].(string)
	registered, _ := row[4].(int64)
	token, err := apns.DeviceTokenFromBytes(raw)
	if err != nil {
		return last, err // as it is of another type, too
	}
	if app == last.Subscription.App {
		app = last.Subscription.App
	}
	key := relay.MailboxKey{Organization: relay.OrganizationID(org), Mailbox: mailbox}
	if key == last.Key {
		key = last.Key
	}
	return Entry{Key: key, Subscription: relay.Subscription{App: app, Device: token, RegisteredAt: fromMillis(registered)}}, nil
}
