package registry

import (
	"bytes"
	"context"
	"time"

	"badgerelay/relay"
)

// An organization that is enabled, disabled or removed changes the sums of all
// shared devices on its mailboxes. There may be a million, so they are changed in
// parts: the first with the organization itself, together with a note of where the
// rest begins, and so on until the note is empty. Whoever is killed in between, the
// note remains, and Run goes on.

var sharedKeyColumns = newColumns("app bytea", "token bytea")

// changeSumsOf queues the change of up to removeBatch sums of devices on mailboxes of
// an organization, from a position on, and of the note. nil: from the first.
func (t *tx) changeSumsOf(org relay.OrganizationID, after []byte) error {
	k := newTable(sharedKeyColumns, 0)
	var next []byte
	app, token := splitDuePosition(string(after))
	err := t.each(`SELECT DISTINCT app, token FROM shared_parts WHERE organization_id = $1 AND (app, token) > ($2, $3) ORDER BY app, token LIMIT $4`,
		[]any{int64(org), app, token, int64(removeBatch)}, func(row scanner) error {
			var app, token raw
			err := row.Scan(&app, &token)
			k.add(bytes.Clone(app), bytes.Clone(token))
			next = []byte(duePosition(app, token))
			return err
		})
	if err != nil {
		return err
	}
	if k.rows() < removeBatch {
		next = []byte{}
	}
	t.changeSums(k)
	t.queue(statement{query: `UPDATE organizations SET sums_after = $1 WHERE id = $2 AND sums_after <> $1`, args: []any{next, int64(org)}})
	return nil
}

// changeRestOfSums changes what changeSumsOf left. What has been asked for is done,
// so that a failure is only logged.
func (s *store) changeRestOfSums(ctx context.Context, org relay.OrganizationID) {
	if s.dry != nil { // the note would never be empty
		return
	}
	if err := s.changeSumsFrom(context.WithoutCancel(ctx), org); err != nil && !s.closed.Load() {
		s.log.Warn("could not have all sums of an organization pushed", "error", err)
	}
}

func (s *store) changeSumsFrom(ctx context.Context, org relay.OrganizationID) error {
	for {
		var after raw
		err := s.change(ctx, func(t *tx) error {
			after = nil
			err := t.each(`SELECT sums_after FROM organizations WHERE id = $1`+t.lock, []any{int64(org)}, func(row scanner) error {
				var noted raw
				err := row.Scan(&noted)
				after = bytes.Clone(noted)
				return err
			})
			t.begun()
			if err != nil || len(after) == 0 {
				return err
			}
			return t.changeSumsOf(org, after)
		})
		if err != nil || len(after) == 0 {
			return err
		}
	}
}

// changeSumsEvery is how often Run looks for sums that were left.
const changeSumsEvery = time.Minute

// changeSumsLeft changes the sums that calls, or relays, that were ended have left.
func (s *store) changeSumsLeft(ctx context.Context) error {
	var orgs []relay.OrganizationID
	err := s.query(ctx, `SELECT id FROM organizations WHERE length(sums_after) > 0`, nil, func(row scanner) error {
		var id relay.OrganizationID
		err := row.Scan(&id)
		orgs = append(orgs, id)
		return err
	})
	if err != nil {
		return err
	}
	for _, org := range orgs {
		if err := s.changeSumsFrom(ctx, org); err != nil {
			return err
		}
	}
	return nil
}
