package registry

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"badgerelay/relay"
)

// Subscribe implements Registry.
func (p *Postgres) Subscribe(ctx context.Context, org relay.OrganizationID, r Registration) (result SubscribeResult, err error) {
	defer p.done(ctx, opSubscribe, time.Now(), &err)
	if err := r.validate(); err != nil {
		return SubscribeResult{}, err
	}
	err = p.write(ctx, func(t *pgTx) error {
		plan, err := p.plan(t, org, []Registration{r})
		if err != nil {
			return err
		}
		if result, err = plan.subscribe(r); err != nil {
			return err
		}
		return t.apply(plan)
	})
	if err != nil {
		return SubscribeResult{}, err
	}
	return result, nil
}

// ImportSubscriptions implements Registry.
func (p *Postgres) ImportSubscriptions(ctx context.Context, org relay.OrganizationID, rs []Registration) (result ImportResult, err error) {
	defer p.done(ctx, opImport, time.Now(), &err)
	return importInBatches(rs, p.batch, func(rs []Registration, decide func(*plan)) error {
		return p.write(ctx, func(t *pgTx) error {
			plan, err := p.plan(t, org, rs)
			if err != nil {
				return err
			}
			decide(plan)
			return t.apply(plan)
		})
	})
}

// plan reads what registrations of an organization are decided on.
func (p *Postgres) plan(t *pgTx, org relay.OrganizationID, rs []Registration) (*plan, error) {
	o, err := t.lockOrganization(pgOrganizationByID, int64(org))
	if err != nil {
		return nil, err
	}
	plan := newPlan(o, t.now, p.lifetime)
	if err := t.readDevices(plan, rs); err != nil {
		return nil, err
	}
	return plan, t.readMailboxes(plan, rs)
}

// columns are the arrays that unnest makes rows of.
type columns struct {
	mailboxes, apps, tokens [][]byte
}

func (c *columns) add(mailbox string, d device) {
	c.mailboxes = append(c.mailboxes, []byte(mailbox))
	c.apps = append(c.apps, []byte(d.app))
	c.tokens = append(c.tokens, d.token.AppendRaw(nil))
}

// readDevices fills p.devices. The join is lateral and its inside can't be pulled
// up, so that each row of the array costs one look into the index, whatever
// the planner thinks of the table's size.
func (t *pgTx) readDevices(p *plan, rs []Registration) error {
	var asked columns
	var devices []*placement
	for _, r := range rs {
		if at, first := p.ask(r); first {
			devices = append(devices, at)
			asked.add("", at.device)
		}
	}
	return t.rows(`SELECT k.i, s.mailbox, s.created_at FROM unnest($2::bytea[], $3::bytea[]) WITH ORDINALITY AS k (token, app, i)
		CROSS JOIN LATERAL (SELECT mailbox, created_at FROM subscriptions
			WHERE organization_id = $1 AND token = k.token AND app = k.app OFFSET 0) s`,
		[]any{int64(p.org.ID), asked.tokens, asked.apps}, func(rows pgx.Rows) error {
			var i, created int64
			var mailbox []byte
			if err := rows.Scan(&i, &mailbox, &created); err != nil {
				return err
			}
			at := devices[i-1]
			at.was, at.created = string(mailbox), fromMillis(created)
			at.is = at.was
			return nil
		})
}

// readMailboxes fills p.live: the mailboxes to come to and those to be left.
func (t *pgTx) readMailboxes(p *plan, rs []Registration) error {
	var asked [][]byte
	var counts []*liveCount
	for _, mailbox := range p.mailboxesOf(rs) {
		asked = append(asked, []byte(mailbox))
		counts = append(counts, p.live[mailbox])
	}
	return t.rows(`SELECT k.i, s.n FROM unnest($2::bytea[]) WITH ORDINALITY AS k (mailbox, i)
		CROSS JOIN LATERAL (SELECT count(*) AS n FROM subscriptions WHERE organization_id = $1 AND mailbox = k.mailbox) s
		WHERE s.n > 0`, []any{int64(p.org.ID), asked}, func(rows pgx.Rows) error {
		var i, n int64
		err := rows.Scan(&i, &n)
		*counts[i-1] = liveCount{n, n}
		return err
	})
}

// apply writes what p decided, in one round trip.
func (t *pgTx) apply(p *plan) error {
	var gone, come, created columns
	var since []int64
	for _, at := range p.touched {
		if at.was != "" && at.was != at.is {
			gone.add(at.was, at.device)
		}
		if !at.renewed {
			created.add(at.is, at.device)
		}
		come.add(at.is, at.device)
		since = append(since, at.created.UnixMilli())
	}
	org := int64(p.org.ID)
	var batch pgx.Batch
	if len(gone.tokens) > 0 { // first, because a device can't be in two places even for a moment
		batch.Queue(pgDelete("subscriptions"), org, gone.mailboxes, gone.apps, gone.tokens)
	}
	if len(come.tokens) > 0 {
		batch.Queue(`INSERT INTO subscriptions (organization_id, mailbox, app, token, created_at, registered_at)
			SELECT $1, mailbox, app, token, created_at, $6 FROM unnest($2::bytea[], $3::bytea[], $4::bytea[], $5::bigint[]) AS k (mailbox, app, token, created_at)
			ON CONFLICT (organization_id, mailbox, app, token) DO UPDATE
			SET created_at = excluded.created_at, registered_at = excluded.registered_at`,
			org, come.mailboxes, come.apps, come.tokens, since, p.now.UnixMilli())
	}
	if len(created.tokens) > 0 { // those that are live again were not removed
		batch.Queue(pgDelete("removed_subscriptions"), org, created.mailboxes, created.apps, created.tokens)
	}
	if err := t.tx.SendBatch(t.ctx, &batch).Close(); err != nil {
		return err
	}
	t.changes = append(t.changes, p.changes()...)
	return t.count(p.org.ID, p.mailboxes, p.subscriptions)
}

// pgDelete returns the statement that deletes rows by their keys.
func pgDelete(table string) string {
	return `DELETE FROM ` + table + ` WHERE (organization_id, mailbox, app, token) IN
		(SELECT $1::bigint, mailbox, app, token FROM unnest($2::bytea[], $3::bytea[], $4::bytea[]) AS k (mailbox, app, token))`
}

// Unsubscribe implements Registry.
func (p *Postgres) Unsubscribe(ctx context.Context, org relay.OrganizationID, r Registration) (err error) {
	defer p.done(ctx, opUnsubscribe, time.Now(), &err)
	if err := r.validate(); err != nil {
		return err
	}
	return p.write(ctx, func(t *pgTx) error {
		o, err := t.lockOrganization(pgOrganizationByID, int64(org))
		if errors.Is(err, ErrOrganizationNotFound) {
			return ErrSubscriptionNotFound
		}
		if err != nil {
			return err
		}
		n, err := t.exec(`DELETE FROM subscriptions WHERE organization_id = $1 AND mailbox = $2 AND app = $3 AND token = $4`,
			int64(org), []byte(r.Mailbox), []byte(r.App), r.Device.AppendRaw(nil))
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrSubscriptionNotFound
		}
		return t.left(o, r.Mailbox)
	})
}

// left counts and tells that one subscription of the mailbox is gone.
func (t *pgTx) left(o Organization, mailbox string) error {
	var live bool
	err := t.tx.QueryRow(t.ctx, `SELECT EXISTS (SELECT 1 FROM subscriptions WHERE organization_id = $1 AND mailbox = $2)`,
		int64(o.ID), []byte(mailbox)).Scan(&live)
	if err != nil {
		return err
	}
	t.changes = append(t.changes, Change{Kind: ChangeUnsubscribed, Organization: o.ID, OrganizationName: o.Name,
		Mailbox: mailbox, Live: live})
	if live {
		return t.count(o.ID, 0, -1)
	}
	return t.count(o.ID, -1, -1)
}
