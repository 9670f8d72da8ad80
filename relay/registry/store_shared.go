package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"badgerelay/relay"
)

// Rows are locked in this order: organizations, shared devices by app and token,
// their parts. Who changes subscriptions holds the organization's row and takes
// the devices'; an exchange takes the devices' alone.

const (
	sharedByK = `(app, token) IN (SELECT app, token FROM k)`

	putPushers = `INSERT INTO pushers (name, seen_at) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at`

	putShared = `INSERT INTO shared_devices (app, token, sequence, accepted, answered, refusal, summed, pusher, push_again_at, due_at)
		SELECT app, token, sequence, accepted, answered, refusal, summed = 1, pusher, push_again_at, due_at FROM k WHERE true ON CONFLICT (app, token) DO NOTHING`
	updateShared = `UPDATE shared_devices SET sequence = k.sequence, accepted = k.accepted, answered = k.answered, refusal = k.refusal,
		summed = k.summed = 1, pusher = k.pusher, push_again_at = k.push_again_at, due_at = k.due_at FROM k WHERE shared_devices.app = k.app AND shared_devices.token = k.token`
	dropShared = `DELETE FROM shared_devices WHERE ` + sharedByK

	putParts = `INSERT INTO shared_parts (app, token, organization_id, mailbox, disabled, joined_at, state, count, newest_count, sequence, received_at, stored_at)
		SELECT app, token, organization_id, mailbox, disabled = 1, joined_at, state, count, newest_count, sequence, received_at, stored_at
		FROM k WHERE true
		ON CONFLICT (app, token, organization_id, mailbox) DO UPDATE SET disabled = excluded.disabled, joined_at = excluded.joined_at,
		state = excluded.state, count = excluded.count, newest_count = excluded.newest_count, sequence = excluded.sequence,
		received_at = excluded.received_at, stored_at = excluded.stored_at`
	dropParts = `DELETE FROM shared_parts WHERE (app, token, organization_id, mailbox) IN (SELECT app, token, organization_id, mailbox FROM k)`
)

var (
	sharedColumns = newColumns("app bytea", "token bytea", "sequence bigint", "accepted bigint", "answered bigint", "refusal bytea",
		"summed bigint", "pusher text", "push_again_at bigint", "due_at bigint")
	partColumns = newColumns("app bytea", "token bytea", "organization_id bigint", "mailbox bytea", "disabled bigint", "joined_at bigint",
		"state bigint", "count bigint", "newest_count bigint", "sequence bigint", "received_at bigint", "stored_at bigint")
)

// changeSums queues that the sums of the devices that k names are others from now
// on, so that they are pushed whatever becomes of who would tell it.
func (t *tx) changeSums(k *table) { t.over(k, t.countChange(sharedByK)) }

// countChange returns the statement; it locks the rows in their order.
func (t *tx) countChange(which string) string {
	return `UPDATE shared_devices SET sequence = sequence + 1 WHERE (app, token) IN
		(SELECT app, token FROM shared_devices WHERE ` + which + ` ORDER BY app, token` + t.lock + `)`
}

// errBecameShared: another relay made the row of a device at the same moment.
var errBecameShared = errors.New("a device became shared meanwhile")

// Exchange implements relay.SharedRegistry.
func (s *store) Exchange(ctx context.Context, x relay.ExchangeRequest) (result relay.ExchangeResult, err error) {
	defer s.done(ctx, opExchange, time.Now(), &err)
	hint := false
	for {
		err = s.change(ctx, func(t *tx) error {
			e := &exchangeTx{tx: t, ExchangeRequest: &x, passOver: s.passOver, silent: map[string]bool{}, heard: map[string]bool{}}
			if err := e.run(); err != nil {
				return err
			}
			result, hint = e.result, e.Lifetime > 0 && e.concernsOthers()
			return nil
		})
		if errors.Is(err, errBecameShared) {
			continue
		}
		if err == nil && hint {
			s.db.hintSums()
		}
		return result, err
	}
}

// concernsOthers reports whether another relay has something to do: to push a sum,
// or to settle what has been accepted.
func (e *exchangeTx) concernsOthers() bool {
	for i, r := range e.order {
		if before := &e.before[i]; r.Sequence != before.Sequence && r.Pusher != e.Relay || r.Answered() != before.Answered() {
			return true
		}
	}
	return e.Leave
}

// exchangeTx is an exchange in its transaction.
type exchangeTx struct {
	*tx
	*relay.ExchangeRequest
	result relay.ExchangeResult

	passOver func(table string, err error)

	heard  map[string]bool // pushers that were heard of within the lifetime
	silent map[string]bool // pushers that were not
	ahead  bool            // some were heard of at times that the clock will say in a lifetime at the earliest: it was set back

	order  []*sharedRow // by app and token, as rows are locked
	before []relay.SharedDevice

	toMake, made int64 // new rows
}

// sharedRow is a device of the exchange.
type sharedRow struct {
	relay.SharedDevice
	update *relay.SharedUpdate
	known  bool // the table has it
	live   []relay.LivePart

	unreadable bool // the row is written anew, whatever becomes of the device
}

func (e *exchangeTx) run() error {
	e.collect()
	if err := e.read(); err != nil {
		return err
	}
	e.begun()
	e.decide()
	e.write()
	e.findDue()
	if err := e.flush(); err != nil {
		return err
	}
	if e.made < e.toMake {
		return errBecameShared
	}
	return nil
}

// collect makes a row of each device, once.
func (e *exchangeTx) collect() {
	seen := map[relay.DeviceKey]bool{}
	for i := range e.Devices {
		u := &e.Devices[i]
		if !seen[u.DeviceKey] {
			seen[u.DeviceKey] = true
			e.order = append(e.order, &sharedRow{SharedDevice: relay.SharedDevice{DeviceKey: u.DeviceKey}, update: u})
		}
	}
	slices.SortFunc(e.order, func(a, b *sharedRow) int {
		return cmp.Or(cmp.Compare(a.App, b.App), bytes.Compare(a.Device.AppendRaw(nil), b.Device.AppendRaw(nil)))
	})
}

// read reads the devices, which it locks, and then the clock and who pushes. While it waits
// for the lock, another relay may store a newer count, which a time from before the wait
// would take for one from before the clock was set; and a pusher that was silent may be heard
// of, and push on.
func (e *exchangeTx) read() error {
	if len(e.order) > 0 {
		e.queueShared()
	}
	var now int64
	e.queue(statement{query: `SELECT ` + e.clock, each: func(row scanner) error {
		err := row.Scan(&now)
		e.result.Now = fromMicros(now)
		return err
	}})
	e.queue(statement{query: `SELECT name, seen_at FROM pushers`, each: func(row scanner) error {
		var name string
		var seen int64
		err := row.Scan(&name, &seen)
		if silence := time.Duration(now-seen) * time.Microsecond; silence < e.Lifetime {
			e.heard[name] = true
			e.ahead = e.ahead || silence <= -e.Lifetime
		} else {
			e.silent[name] = true
		}
		return err
	}})
	return e.flush()
}

// queueShared queues the reading of the devices, their parts and their subscriptions.
func (e *exchangeTx) queueShared() {
	k := newTable(deviceColumns, len(e.order))
	at := make(map[string]*sharedRow, len(e.order))
	key := func(app, token []byte) string { return string(app) + "\x00" + string(token) }
	for _, r := range e.order {
		app, token := []byte(r.App), r.Device.AppendRaw(nil)
		k.add(deviceHash(device{r.App, r.Device}), app, token)
		at[key(app, token)] = r
	}
	e.queue(statement{k: k, query: `SELECT app, token, sequence, accepted, refusal, summed, pusher, push_again_at FROM shared_devices WHERE ` + sharedByK +
		` ORDER BY app, token` + e.lock, each: func(row scanner) error {
		var record sharedRecord
		if err := row.Scan(record.fields()...); err != nil {
			return err
		}
		r := at[key(record.app, record.token)]
		d, err := record.device()
		r.known, r.SharedDevice = true, d
		if err != nil { // what APNs refused is not known: the sum is pushed once more
			e.passOver("shared_devices", err)
			r.unreadable = true
		}
		return nil
	}})
	e.queue(statement{k: k, query: `SELECT app, token, organization_id, mailbox, disabled, joined_at, state, count, newest_count, sequence,
		received_at, stored_at FROM shared_parts WHERE ` + sharedByK, each: func(row scanner) error {
		var app, token raw
		var p partRecord
		if err := row.Scan(append([]any{&app, &token}, p.fields()...)...); err != nil {
			return err
		}
		r := at[key(app, token)]
		r.Parts = append(r.Parts, p.part())
		return nil
	}})
	e.findMailboxes(k, func(row scanner) error {
		var i, org, created, registered int64
		var mailbox raw
		var l relay.LivePart
		if err := row.Scan(&i, &org, &mailbox, &created, &registered, &l.Disabled, &l.Quarantined); err != nil {
			return err
		}
		l.Key = relay.MailboxKey{Organization: relay.OrganizationID(org), Mailbox: string(mailbox)}
		l.CreatedAt, l.RegisteredAt = fromMillis(created), fromMillis(registered)
		if !slices.ContainsFunc(e.order[i].live, func(o relay.LivePart) bool { return o.Key == l.Key }) {
			e.order[i].live = append(e.order[i].live, l)
		}
		return nil
	})
}

// decide has relay decide what becomes of each device.
func (e *exchangeTx) decide() {
	for _, r := range e.order {
		r.Parts = slices.Clip(r.Parts)
		before := r.SharedDevice
		e.before = append(e.before, before)
		r.Merge(r.update, relay.ExchangeTerms{
			Relay: e.Relay, Now: e.result.Now, Lifetime: e.Lifetime, Stray: e.Stray, ShownFor: e.ShownFor, Live: r.live,
			PusherFree: !e.heard[r.Pusher], PusherSilent: e.silent[r.Pusher],
		})
		if r.Shared && (len(before.Parts) == 0 || before.Behind(r.update)) || !r.Shared && r.known && e.Lifetime > 0 {
			e.changes = append(e.changes, Change{Kind: ChangeDeviceShared, App: r.App, Device: r.Device})
		}
	}
	by := make(map[relay.DeviceKey]*sharedRow, len(e.order))
	for _, r := range e.order {
		by[r.DeviceKey] = r
	}
	for i := range e.Devices {
		e.result.Devices = append(e.result.Devices, by[e.Devices[i].DeviceKey].SharedDevice)
	}
}

// write queues what has changed.
func (e *exchangeTx) write() {
	put, set, drop := newTable(sharedColumns, 0), newTable(sharedColumns, 0), newTable(sharedColumns, 0)
	parts, gone := newTable(partColumns, 0), newTable(partColumns, 0)
	for i, r := range e.order {
		before := &e.before[i]
		switch {
		case r.Shared && !r.known:
			put.addShared(&r.SharedDevice)
		case r.Shared && (r.unreadable || !sameShared(before, &r.SharedDevice)):
			set.addShared(&r.SharedDevice)
		case !r.Shared && r.known:
			drop.addShared(&r.SharedDevice)
		}
		had := make(map[relay.MailboxKey]relay.Part, len(before.Parts))
		for _, p := range before.Parts {
			had[p.Key] = p
		}
		for _, p := range r.Parts {
			old, there := had[p.Key]
			old.Quarantined, old.OtherOrganization = p.Quarantined, p.OtherOrganization // which are not kept
			if r.Shared && (!there || old != p) {
				parts.addPart(r.DeviceKey, &p)
			}
			if r.Shared {
				delete(had, p.Key)
			}
		}
		for _, p := range had {
			gone.addPart(r.DeviceKey, &p)
		}
	}
	if e.toMake = int64(put.rows()); e.toMake > 0 {
		e.queue(statement{k: put, query: putShared, done: func(n int64) { e.made += n }})
	}
	e.over(set, updateShared)
	e.over(gone, dropParts)
	e.over(drop, dropShared)
	e.over(parts, putParts)
	e.writePusher()
}

// writePusher notes that the relay was heard of. Where the clock was set back, the silence of
// the others begins now: one that was killed before would count as heard of until the clock
// has caught up.
func (e *exchangeTx) writePusher() {
	if e.Lifetime > 0 && e.ahead {
		e.queue(statement{query: `UPDATE pushers SET seen_at = $1 WHERE name IN (SELECT name FROM pushers WHERE seen_at >= $2 ORDER BY name` + e.lock + `)`,
			args: []any{e.result.Now.UnixMicro(), e.result.Now.Add(e.Lifetime).UnixMicro()}})
	}
	switch {
	case e.Lifetime == 0: // nobody else looks
	case e.Leave:
		e.queue(statement{query: `DELETE FROM pushers WHERE name = $1`, args: []any{e.Relay}})
	default:
		e.queue(statement{query: putPushers, args: []any{e.Relay, e.result.Now.UnixMicro()}})
	}
	if len(e.silent) > 0 { // those that were not heard of for long are as good as gone
		e.queue(statement{query: `DELETE FROM pushers WHERE seen_at < $1 AND name <> $2`,
			args: []any{e.result.Now.Add(-60 * max(e.Lifetime, time.Minute)).UnixMicro(), e.Relay}})
	}
}

// sameShared reports whether the rows of a device are the same, its parts aside.
func sameShared(a, b *relay.SharedDevice) bool {
	return a.Sequence == b.Sequence && a.Accepted == b.Accepted && a.Refused == b.Refused && a.Summed == b.Summed && a.Pusher == b.Pusher &&
		a.PushAgainAt.Equal(b.PushAgainAt) && a.DueAt().Equal(b.DueAt())
}

func (t *table) addShared(d *relay.SharedDevice) {
	t.add([]byte(d.App), d.Device.AppendRaw(nil), int64(d.Sequence), int64(d.Accepted), int64(d.Answered()), encodeSharedRefusal(d.Refused),
		bit(d.Summed), d.Pusher, toMicros(d.PushAgainAt), toMicros(d.DueAt()))
}

// encodeSharedRefusal returns the column's value; nil is nothing.
func encodeSharedRefusal(f *relay.SharedRefusal) []byte {
	if f == nil {
		return []byte{}
	}
	data, err := json.Marshal(f)
	if err != nil {
		panic(err) // strings, numbers and times
	}
	return data
}

func decodeSharedRefusal(data []byte) (f *relay.SharedRefusal, err error) {
	if len(data) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("read refusal of a sum: %w", err)
	}
	return f, nil
}

func (t *table) addPart(d relay.DeviceKey, p *relay.Part) {
	t.add([]byte(d.App), d.Device.AppendRaw(nil), int64(p.Key.Organization), []byte(p.Key.Mailbox), bit(p.Disabled), toMicros(p.JoinedAt),
		int64(p.State), int64(p.Count), int64(p.NewestCount), int64(p.Sequence), toMicros(p.ReceivedAt), toMicros(p.StoredAt))
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// Times of shared devices are kept to the microsecond, because they order counts.
func toMicros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
