package registry

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"badgerelay/apns"
	"badgerelay/relay"
)

// deviceHash is what the table devices knows a device of an app by: 16 bytes of
// SHA-256, because nobody can make two devices that share those.
func deviceHash(d device) string {
	b := make([]byte, 0, apns.MaxDeviceTokenSize+MaxAppSize+1)
	b = append(d.token.AppendRaw(b), d.app...)
	b = append(b, byte(len(d.app))) // so that no token with its app reads as others
	sum := sha256.Sum256(b)
	return string(sum[:16])
}

// sortByHash puts those side by side that share a page of the table.
func sortByHash(devices []*placement) {
	slices.SortFunc(devices, func(a, b *placement) int { return strings.Compare(a.hash, b.hash) })
}

// readDevices fills p.devices.
func (t *tx) readDevices(p *plan, rs []Registration) error {
	devices := make([]*placement, 0, len(rs))
	for _, r := range rs {
		if at, first := p.ask(r); first {
			at.hash = deviceHash(at.device)
			devices = append(devices, at)
		}
	}
	sortByHash(devices)
	var known []*placement
	err := inParts(devices, func(part []*placement) error {
		args := append(make([]any, 0, len(part)+1), int64(p.org.ID))
		for _, at := range part {
			args = append(args, []byte(at.hash))
		}
		return t.rows(`WITH o (id) AS (VALUES (?)), k (device, i) AS (VALUES `+numberedValues("(?, ", len(part))+`)
			SELECT k.i, d.mailbox FROM o CROSS JOIN k CROSS JOIN devices d ON d.organization_id = o.id AND d.device = k.device`,
			args, func(rows *sql.Rows) error {
				var i int
				var mailbox string
				err := rows.Scan(&i, &mailbox)
				part[i].was, part[i].is = mailbox, mailbox
				known = append(known, part[i])
				return err
			})
	})
	if err != nil {
		return err
	}
	return t.readCreated(p.org.ID, known)
}

// readCreated fills in since when devices are where they are.
func (t *tx) readCreated(org relay.OrganizationID, known []*placement) error {
	return inParts(known, func(part []*placement) error {
		args := append(make([]any, 0, 3*len(part)+1), int64(org))
		for _, at := range part {
			args = append(args, at.was, at.app, at.token.AppendRaw(nil))
		}
		found := 0
		err := t.rows(`WITH o (id) AS (VALUES (?)), k (mailbox, app, token, i) AS (VALUES `+numberedValues("(?, ?, ?, ", len(part))+`)
			SELECT k.i, s.created_at FROM o CROSS JOIN k CROSS JOIN subscriptions s
			ON s.organization_id = o.id AND s.mailbox = k.mailbox AND s.app = k.app AND s.token = k.token`,
			args, func(rows *sql.Rows) error {
				var i int
				var created int64
				err := rows.Scan(&i, &created)
				part[i].created = fromMillis(created)
				found++
				return err
			})
		if err == nil && found != len(part) {
			return fmt.Errorf("%d devices are on mailboxes that do not have them", len(part)-found)
		}
		return err
	})
}

// putDevices writes where devices are now.
func (t *tx) putDevices(org relay.OrganizationID, placed []*placement) error {
	sortByHash(placed)
	return inParts(placed, func(part []*placement) error {
		args := append(make([]any, 0, 2*len(part)+1), int64(org))
		for _, at := range part {
			args = append(args, []byte(at.hash), at.is)
		}
		_, err := t.exec(`INSERT INTO devices (organization_id, device, mailbox) VALUES `+values("(?1, ?, ?)", len(part))+`
			ON CONFLICT (organization_id, device) DO UPDATE SET mailbox = excluded.mailbox`, args...)
		return err
	})
}

// dropDevice forgets where a device was.
func (t *tx) dropDevice(key relay.MailboxKey, d device) error {
	n, err := t.exec(`DELETE FROM devices WHERE organization_id = ? AND device = ? AND mailbox = ?`,
		int64(key.Organization), []byte(deviceHash(d)), key.Mailbox)
	if err == nil && n != 1 {
		return fmt.Errorf("device of a subscription is in %d places", n)
	}
	return err
}

// addDevices is the third migration. It replaces the unique index by device
// token and app with a table that is half as large: device tokens are random,
// so every registration touches another page of it, and pages are what
// registering many takes its time for.
func addDevices(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `
		-- Where a device of an app is: on one mailbox of an organization at a time.
		CREATE TABLE devices (
			organization_id INTEGER NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
			device          BLOB    NOT NULL, -- deviceHash
			mailbox         TEXT    NOT NULL,
			PRIMARY KEY (organization_id, device)
		) STRICT, WITHOUT ROWID;
		DROP INDEX subscriptions_device;`)
	if err != nil {
		return err
	}
	insert, err := tx.PrepareContext(ctx, `INSERT INTO devices (organization_id, device, mailbox) VALUES (?, ?, ?)`)
	if err != nil {
		return err
	}
	rows, err := tx.QueryContext(ctx, `SELECT organization_id, mailbox, app, token FROM subscriptions`)
	err = eachRow(rows, err, func(rows *sql.Rows) error {
		var org int64
		var mailbox string
		var d device
		var token sql.RawBytes
		if err := rows.Scan(&org, &mailbox, &d.app, &token); err != nil {
			return err
		}
		if d.token, err = apns.DeviceTokenFromBytes(token); err != nil {
			return err
		}
		_, err := insert.ExecContext(ctx, org, []byte(deviceHash(d)), mailbox)
		return err
	})
	return errors.Join(err, insert.Close())
}
