package registry

import (
	"bytes"
	"context"
	"time"

	"badgerelay/relay"
)

// Unsubscribe implements Registry.
func (s *store) Unsubscribe(ctx context.Context, org relay.OrganizationID, r Registration) (err error) {
	defer s.done(ctx, opUnsubscribe, time.Now(), &err)
	if err := r.validate(); err != nil {
		return err
	}
	found := false
	err = s.change(ctx, func(t *tx) error {
		ending := []*ending{{Removal: relay.Removal{Key: relay.MailboxKey{Organization: org, Mailbox: r.Mailbox}, App: r.App, Device: r.Device}}}
		if err := t.end(ending, false); err != nil {
			return err
		}
		if found = ending[0].found; !found { // one that has ended doesn't come back either
			t.queue(statement{query: `UPDATE removed_subscriptions SET superseded = true
				WHERE organization_id = $1 AND mailbox = $2 AND app = $3 AND token = $4 AND NOT superseded`,
				args: []any{int64(org), []byte(r.Mailbox), []byte(r.App), r.Device.AppendRaw(nil)}})
		}
		return nil
	})
	if err == nil && !found {
		return ErrSubscriptionNotFound
	}
	return err
}

// removeBatch is the number of removals in a transaction; contract of Registry.
const removeBatch = 1000

// Remove implements Registry.
func (s *store) Remove(ctx context.Context, removals []relay.Removal) (removed []bool, err error) {
	if len(removals) == 0 {
		return nil, nil
	}
	defer s.done(ctx, opRemove, time.Now(), &err)
	removed = make([]bool, len(removals))
	for first := 0; first < len(removals); first += removeBatch {
		part := removals[first:min(len(removals), first+removeBatch)]
		endings := make([]*ending, 0, len(part))
		for _, r := range part {
			endings = append(endings, &ending{Removal: r})
		}
		if err := s.change(ctx, func(t *tx) error { return t.end(endings, true) }); err != nil {
			return nil, err
		}
		for i, e := range endings {
			removed[first+i] = e.found
		}
	}
	return removed, nil
}

// ending is a removal and what it found.
type ending struct {
	relay.Removal
	found               bool
	created, registered int64
	quarantine          []byte
}

var (
	idColumns     = newColumns("id bigint")
	endingColumns = newColumns("organization_id bigint", "mailbox bytea", "app bytea", "token bytea", "before bigint")
	goneColumns   = newColumns("organization_id bigint", "device bigint", "mailbox bytea", "app bytea", "token bytea",
		"created_at bigint", "registered_at bigint", "reason bytea")
)

// end ends subscriptions, counts and tells it, and where it is asked to keeps
// them among the removed ones. A subscription ends once.
func (t *tx) end(endings []*ending, keep bool) error {
	orgs, live, err := t.findEndings(endings)
	if err != nil {
		return err
	}
	t.endFound(endings, orgs, live, keep)
	return nil
}

// endFound does so with those that are still marked as found.
func (t *tx) endFound(endings []*ending, orgs map[relay.OrganizationID]Organization, live map[relay.MailboxKey]int64, keep bool) {
	type key struct {
		relay.MailboxKey
		device
	}
	seen := make(map[key]bool, len(endings))
	counts := make(map[relay.OrganizationID]count)
	gone := newTable(goneColumns, len(endings))
	for _, e := range endings {
		o, d := orgs[e.Key.Organization], device{e.App, e.Device}
		if e.found = e.found && !seen[key{e.Key, d}]; !e.found {
			continue
		}
		seen[key{e.Key, d}] = true
		gone.add(int64(o.ID), deviceHash(d), []byte(e.Key.Mailbox), []byte(e.App), e.Device.AppendRaw(nil), e.created, e.registered, []byte(e.Reason))
		live[e.Key]--
		n := counts[o.ID]
		n.subscriptions--
		if live[e.Key] == 0 {
			n.mailboxes--
		}
		counts[o.ID] = n
		t.changes = append(t.changes, Change{Kind: ChangeUnsubscribed, Organization: o.ID, OrganizationName: o.Name,
			Mailbox: e.Key.Mailbox, Live: live[e.Key] > 0})
	}
	t.changeSums(gone)
	t.over(gone, deleteSubscriptions)
	t.moveDevices(gone, newTable(keyColumns, 0))
	if keep {
		t.over(gone, keepRemoved, t.now.UnixMilli())
	}
	t.count(counts)
}

const keepRemoved = `INSERT INTO removed_subscriptions
	(organization_id, mailbox, app, token, device, created_at, registered_at, removed_at, reason, superseded)
	SELECT organization_id, mailbox, app, token, device, created_at, registered_at, $1, reason, false FROM k WHERE true
	ON CONFLICT (organization_id, mailbox, app, token) DO UPDATE SET created_at = excluded.created_at,
	registered_at = excluded.registered_at, removed_at = excluded.removed_at, reason = excluded.reason, superseded = false`

// findEndings locks the organizations of endings, and reads which of their
// subscriptions are there and how many are on their mailboxes.
func (t *tx) findEndings(endings []*ending) (map[relay.OrganizationID]Organization, map[relay.MailboxKey]int64, error) {
	orgs, live := make(map[relay.OrganizationID]Organization), make(map[relay.MailboxKey]int64)
	ids, k := newTable(idColumns, 1), newTable(endingColumns, len(endings))
	for _, e := range endings {
		before := int64(1<<63 - 1)
		if !e.Timestamp.IsZero() {
			before = e.Timestamp.UnixMilli()
		}
		if _, known := orgs[e.Key.Organization]; !known {
			orgs[e.Key.Organization] = Organization{}
			ids.add(int64(e.Key.Organization))
		}
		k.add(int64(e.Key.Organization), []byte(e.Key.Mailbox), []byte(e.App), e.Device.AppendRaw([]byte{}), before)
	}
	clear(orgs)
	t.queueOrganizations(ids, orgs)
	t.queue(statement{k: k, query: `SELECT k.i, s.created_at, s.registered_at, s.quarantine,
		(SELECT count(*) FROM subscriptions c WHERE c.organization_id = s.organization_id AND c.mailbox = s.mailbox) FROM k ` +
		t.look("subscriptions", `s.organization_id = k.organization_id AND s.mailbox = k.mailbox AND s.app = k.app AND s.token = k.token
			AND s.registered_at < k.before`), each: func(row scanner) error {
		var i, created, registered, n int64
		var quarantine raw
		if err := row.Scan(&i, &created, &registered, &quarantine, &n); err != nil {
			return err
		}
		e := endings[i]
		e.found, e.created, e.registered, e.quarantine = true, created, registered, bytes.Clone(quarantine)
		live[e.Key] = n
		return nil
	}})
	err := t.flush()
	t.begun()
	for _, e := range endings {
		_, known := orgs[e.Key.Organization]
		e.found = e.found && known
	}
	return orgs, live, err
}
