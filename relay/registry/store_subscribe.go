package registry

import (
	"context"
	"time"

	"badgerelay/relay"
)

// Subscribe implements Registry.
func (s *store) Subscribe(ctx context.Context, org relay.OrganizationID, r Registration) (result SubscribeResult, err error) {
	defer s.done(ctx, opSubscribe, time.Now(), &err)
	if err := r.validate(); err != nil {
		return SubscribeResult{}, err
	}
	d, err := s.declare(ctx, org, r.request())
	if err != nil {
		return SubscribeResult{}, err
	}
	return SubscribeResult{
		Subscription: Subscription{
			Organization: org, Mailbox: r.Mailbox, App: r.App, Device: r.Device,
			CreatedAt: d.created, RegisteredAt: d.registered, ExpiresAt: d.expires, OtherMailboxes: d.others,
		},
		Created: len(d.added) > 0, LeftMailboxes: d.removed,
	}, nil
}

// SetDevice implements Registry.
func (s *store) SetDevice(ctx context.Context, org relay.OrganizationID, m DeviceMailboxes) (result SetDeviceResult, err error) {
	defer s.done(ctx, opSetDevice, time.Now(), &err)
	if err := m.validate(); err != nil {
		return SetDeviceResult{}, err
	}
	d, err := s.declare(ctx, org, m.request())
	if err != nil {
		return SetDeviceResult{}, err
	}
	result = SetDeviceResult{Added: d.added, Removed: d.removed, Kept: d.kept}
	if len(m.Mailboxes) > 0 {
		result.ExpiresAt = d.expires
	}
	return result, nil
}

// declare does what a request asks for, together with others that wait.
func (s *store) declare(ctx context.Context, org relay.OrganizationID, q request) (declared, error) {
	if s.closed.Load() {
		return declared{}, ErrUnavailable
	}
	if err := ctx.Err(); err != nil {
		return declared{}, err
	}
	if s.dry != nil {
		return s.declareAlone(org, q)
	}
	return s.groups.declare(ctx, org, q, func() { s.declareWaiting(org) })
}

// declareWaiting does what requests of an organization wait for, in one
// transaction. Who waits for it may stop waiting, so it has no context of a
// caller; the database bounds it.
func (s *store) declareWaiting(org relay.OrganizationID) {
	var group []*waiting
	err := s.change(context.Background(), func(t *tx) error {
		group = s.groups.take(org)
		return s.declareGroup(t, org, group)
	})
	if group == nil {
		group = s.groups.take(org)
	}
	if len(group) > 1 && err != nil && !isDomainError(s.db.unavailable(err)) {
		s.declareEach(org, group) // the fault of one of them is not the others'
		return
	}
	reply(group, err)
}

// declareEach does requests in transactions of their own.
func (s *store) declareEach(org relay.OrganizationID, group []*waiting) {
	for i := range group {
		alone := group[i : i+1]
		reply(alone, s.change(context.Background(), func(t *tx) error { return s.declareGroup(t, org, alone) }))
	}
}

// reply tells those that wait how it went; err is the transaction's.
func reply(group []*waiting, err error) {
	for _, w := range group {
		if err != nil {
			w.declared, w.err = declared{}, err
		}
		close(w.done)
	}
}

func (s *store) declareGroup(t *tx, org relay.OrganizationID, group []*waiting) error {
	qs := make([]request, len(group))
	for i, w := range group {
		qs[i] = w.request
	}
	p, err := s.readSubscribeTx(t, org, qs)
	if err != nil {
		return err
	}
	for _, w := range s.groups.begin(group) {
		w.declared, w.err = p.declare(w.request)
	}
	t.apply(p)
	return nil
}

// ImportSubscriptions implements Registry.
func (s *store) ImportSubscriptions(ctx context.Context, org relay.OrganizationID, rs []Registration) (result ImportResult, err error) {
	defer s.done(ctx, opImport, time.Now(), &err)
	return importInBatches(rs, s.batch, func(qs []request, decide func(*subscribeTx)) error {
		return s.change(ctx, func(t *tx) error {
			p, err := s.readSubscribeTx(t, org, qs)
			if err != nil {
				return err
			}
			decide(p)
			t.apply(p)
			return nil
		})
	})
}

// readSubscribeTx reads what requests of an organization are decided on, in one trip.
func (s *store) readSubscribeTx(t *tx, org relay.OrganizationID, qs []request) (*subscribeTx, error) {
	p := s.newSubscribeTx(t.now, org, len(qs))
	t.queueOrganization(organizationByID, int64(org), &p.org)
	t.queue(statement{query: `SELECT EXISTS (SELECT 1 FROM removed_subscriptions WHERE organization_id = $1)`, args: []any{int64(org)},
		each: func(row scanner) error { return row.Scan(&p.anyRemoved) }})
	t.readDevices(p, org, qs)
	t.readMailboxes(p, org, qs)
	if err := t.flush(); err != nil {
		return nil, err
	}
	t.begun()
	if p.org.ID == 0 {
		return nil, ErrOrganizationNotFound
	}
	return p, nil
}

var (
	deviceColumns  = newColumns("device bigint", "app bytea", "token bytea")
	mailboxColumns = newColumns("mailbox bytea")
)

// readDevices queues the reading of where devices are, and of how many are on
// the mailboxes that they may leave.
func (t *tx) readDevices(p *subscribeTx, org relay.OrganizationID, qs []request) {
	var devices []*deviceState
	for _, q := range qs {
		if at, first := p.ask(q.device); first {
			devices = append(devices, at)
		}
	}
	sortByHash(devices)
	t.findDevices(int64(org), deviceTable(devices), func(row scanner) error {
		var i, created, registered, live int64
		var mailbox raw
		if err := row.Scan(&i, &mailbox, &created, &registered, &live); err != nil {
			return err
		}
		at := devices[i]
		if at.on(string(mailbox)) == nil {
			at.memberships = append(at.memberships, membership{mailbox: string(mailbox), before: true, after: true, created: fromMillis(created), registered: fromMillis(registered)})
		}
		p.found(string(mailbox), live)
		return nil
	})
	if t.onOthers != "" {
		return
	}
	t.findMailboxes(deviceTable(devices), func(row scanner) error {
		var i, of, created, registered int64
		var mailbox raw
		var disabled, quarantined bool
		err := row.Scan(&i, &of, &mailbox, &created, &registered, &disabled, &quarantined)
		devices[i].others = devices[i].others || of != int64(org)
		return err
	})
}

// deviceTable is k with deviceColumns.
func deviceTable(devices []*deviceState) *table {
	k := newTable(deviceColumns, len(devices))
	for _, at := range devices {
		k.add(at.hash, []byte(at.app), at.token.AppendRaw(nil))
	}
	return k
}

// readMailboxes queues the reading of how many devices are on the mailboxes to
// come to.
func (t *tx) readMailboxes(p *subscribeTx, org relay.OrganizationID, qs []request) {
	mailboxes := p.mailboxesOf(qs)
	k := newTable(mailboxColumns, len(mailboxes))
	for _, mailbox := range mailboxes {
		k.add([]byte(mailbox))
	}
	t.queue(statement{query: `SELECT k.i, count(*) FROM k ` +
		t.look("subscriptions", "s.organization_id = $1 AND s.mailbox = k.mailbox") + ` GROUP BY k.i`,
		args: []any{int64(org)}, k: k, each: func(row scanner) error {
			var i, n int64
			err := row.Scan(&i, &n)
			p.found(mailboxes[i], n)
			return err
		}})
}

const (
	// namedByK are the rows that k names.
	namedByK = `(organization_id, mailbox, app, token) IN (SELECT organization_id, mailbox, app, token FROM k)`

	deleteSubscriptions = `DELETE FROM subscriptions WHERE ` + namedByK
	deleteRemoved       = `DELETE FROM removed_subscriptions WHERE ` + namedByK
)

// supersedeRemoved keeps what ended of devices that are registered from being restored.
func (d *dialect) supersedeRemoved() string {
	return `UPDATE removed_subscriptions` + d.byDevice + ` SET superseded = true FROM k
		WHERE removed_subscriptions.organization_id = k.organization_id AND removed_subscriptions.device = k.device
		AND removed_subscriptions.app = k.app AND removed_subscriptions.token = k.token AND NOT removed_subscriptions.superseded`
}

// The tables of subscriptions that statements are about.
var (
	keyColumns = newColumns("organization_id bigint", "device bigint", "mailbox bytea", "app bytea", "token bytea")
	putColumns = newColumns("organization_id bigint", "device bigint", "mailbox bytea", "app bytea", "token bytea", "created_at bigint")
)

// apply queues the writing of what p decided.
func (t *tx) apply(p *subscribeTx) {
	gone, come, put, alone := newTable(keyColumns, 0), newTable(putColumns, len(p.touched)), newTable(putColumns, 0), newTable(keyColumns, 0)
	org := int64(p.org.ID)
	for _, at := range p.touched {
		app, token := []byte(at.app), at.token.AppendRaw(nil)
		for _, on := range at.memberships {
			switch {
			case on.before && !on.after:
				gone.add(org, at.hash, []byte(on.mailbox), app, token)
			case on.after && !on.before:
				come.add(org, at.hash, []byte(on.mailbox), app, token, on.created.UnixMilli())
			case on.after && on.touched:
				put.add(org, at.hash, []byte(on.mailbox), app, token, on.created.UnixMilli())
			}
		}
		if p.anyRemoved && at.alone {
			alone.add(org, at.hash, []byte{}, app, token)
		}
	}
	t.changeSums(gone)
	t.over(gone, deleteSubscriptions)
	t.over(come, t.putSubscriptions, p.now.UnixMilli())
	t.moveDevices(gone, come)
	if p.anyRemoved {
		t.over(come, deleteRemoved) // those that are live again were not removed
		t.over(alone, t.supersedeRemoved())
	}
	t.over(put, t.putSubscriptions+renewing, p.now.UnixMilli())
	if t.onOthers == "" {
		t.shareDevices(p)
	}
	t.count(map[relay.OrganizationID]count{p.org.ID: {p.mailboxes, p.subscriptions}})
	t.changes = append(t.changes, p.changes()...)
}

// shareDevices makes the devices shared that came to a mailbox and are on others, so
// that a look-up of any of these says so.
func (t *tx) shareDevices(p *subscribeTx) {
	put := newTable(sharedColumns, 0)
	for _, at := range p.touched {
		if !at.cameToSeveral(true) {
			continue
		}
		d := relay.SharedDevice{DeviceKey: relay.DeviceKey{App: at.app, Device: at.token}, Sequence: uint64(p.now.UnixMilli())}
		d.Accepted = d.Sequence
		put.addShared(&d)
	}
	t.over(put, putShared)
}

// renewing ends putSubscriptions for subscriptions that are there.
const renewing = ` ON CONFLICT (organization_id, mailbox, app, token) DO UPDATE
	SET created_at = excluded.created_at, registered_at = excluded.registered_at`
