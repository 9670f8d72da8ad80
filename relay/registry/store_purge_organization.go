package registry

import (
	"bytes"
	"context"
	"errors"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
)

// PurgeOrganization implements Registry.
func (s *store) PurgeOrganization(ctx context.Context, name string) (err error) {
	defer s.done(ctx, opOrganizationWrite, time.Now(), &err)
	if name, err = NormalizeOrganization(name); err != nil {
		return err
	}
	org, err := s.beginPurge(ctx, name)
	if err != nil || s.dry != nil { // what follows deletes what is marked, and refuses nothing
		return err
	}
	return s.finishPurge(context.WithoutCancel(ctx), org)
}

// purgeOrganizations forgets the removed ones whose retention has passed, and goes on
// with those that somebody had begun to forget.
func (s *store) purgeOrganizations(ctx context.Context) error {
	before := s.clock.due().Add(-RemovedRetention).UnixMilli()
	var due []string
	err := s.query(ctx, `SELECT name FROM organizations WHERE removed_at <= $1 OR purging`, []any{before}, func(row scanner) error {
		var name string
		err := row.Scan(&name)
		due = append(due, name)
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range due {
		org, err := s.beginPurge(ctx, name)
		if err == nil {
			err = s.finishPurge(ctx, org)
		}
		// Another relay, or an operator, may have been faster.
		if err != nil && !errors.Is(err, ErrOrganizationNotFound) {
			return err
		}
	}
	return nil
}

// beginPurge marks a removed organization, which does not come back from then on, and
// frees its keys for others.
func (s *store) beginPurge(ctx context.Context, name string) (org relay.OrganizationID, err error) {
	err = s.change(ctx, func(t *tx) error {
		o, err := t.lockOrganization(purgedOrganization, name)
		if err != nil {
			return err
		}
		org = o.ID
		for _, query := range []string{
			`UPDATE organizations SET purging = true WHERE id = $1`,
			`DELETE FROM credentials WHERE organization_id = $1`,
			`DELETE FROM removed_credentials WHERE organization_id = $1`,
		} {
			t.queue(statement{query: query, args: []any{int64(org)}})
		}
		return nil
	})
	return org, err
}

// finishPurge deletes what is kept of a marked organization, its own row last.
// There may be millions of rows, so it does it in transactions of up to purgeRows
// each, between which others write. Nobody is told: when it was removed everybody was.
func (s *store) finishPurge(ctx context.Context, org relay.OrganizationID) error {
	for _, purge := range []func(*tx, relay.OrganizationID, *purgePart) error{(*tx).purgeSubscriptions, (*tx).purgeRemoved} {
		part := purgePart{rows: s.purgeRows, after: []any{[]byte{}, []byte{}, []byte{}}} // before all mailboxes
		for !part.last {
			if err := s.writePurging(ctx, org, func(t *tx) error { return purge(t, org, &part) }); err != nil {
				return err
			}
		}
	}
	if err := s.db.forgetOrganization(ctx, org); err != nil {
		return err
	}
	return s.writePurging(ctx, org, func(t *tx) error {
		_, err := t.exec(`DELETE FROM organizations WHERE id = $1`, int64(org))
		return err
	})
}

// writePurging runs fn in a transaction that holds the organization's row, so that
// several who purge it take turns. ErrOrganizationNotFound: it is purged.
func (s *store) writePurging(ctx context.Context, org relay.OrganizationID, fn func(*tx) error) error {
	return s.change(ctx, func(t *tx) error {
		if _, err := t.lockOrganization(purgingOrganization, int64(org)); err != nil {
			return err
		}
		return fn(t)
	})
}

// purgePart is how far the rows of a table are deleted.
type purgePart struct {
	rows  int   // up to so many at once
	after []any // mailbox, app and token
	last  bool
}

func (t *tx) purgeSubscriptions(org relay.OrganizationID, part *purgePart) error {
	gone, err := t.nextOf("subscriptions", org, part)
	if err != nil {
		return err
	}
	t.changeSums(gone)
	t.over(gone, deleteSubscriptions) // where devices are found by is left to forgetOrganization
	return nil
}

func (t *tx) purgeRemoved(org relay.OrganizationID, part *purgePart) error {
	gone, err := t.nextOf("removed_subscriptions", org, part)
	t.over(gone, deleteRemoved)
	return err
}

// nextOf reads up to part.rows rows of an organization that follow a part, and moves
// that to their end.
func (t *tx) nextOf(from string, org relay.OrganizationID, part *purgePart) (*table, error) {
	k := newTable(keyColumns, 0)
	query := `SELECT mailbox, app, token FROM ` + from + ` WHERE organization_id = $1 AND (mailbox, app, token) > ($2, $3, $4)
		ORDER BY mailbox, app, token LIMIT $5`
	after := part.after
	err := t.each(query, append(append([]any{int64(org)}, after...), int64(part.rows)), func(row scanner) error {
		var mailbox, app, token raw
		if err := row.Scan(&mailbox, &app, &token); err != nil {
			return err
		}
		d, _ := apns.DeviceTokenFromBytes(token) // a row that can't be read goes, too
		after = []any{bytes.Clone(mailbox), bytes.Clone(app), bytes.Clone(token)}
		k.add(append([]any{int64(org), deviceHash(device{string(app), d})}, after...)...)
		return nil
	})
	part.after, part.last = after, k.rows() < part.rows
	return k, err
}
