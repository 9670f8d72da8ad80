package registry

import (
	"encoding/binary"
	"fmt"
	"slices"

	"badgerelay/apns"
	"badgerelay/relay"
)

// findDue queues the search for devices that wait for the relay's push. A row that
// can't be read takes none of their places.
func (e *exchangeTx) findDue() {
	if e.Due == 0 {
		return
	}
	app, token := splitDuePosition(e.After)
	query := `SELECT app, token, sequence, answered, pusher, due_at > 0 AND due_at <= $3 AS again FROM shared_devices d WHERE (sequence > answered OR due_at > 0)
		AND (sequence > answered OR due_at <= $3) AND (app, token) > ($1, $2)`
	args := []any{app, token, e.result.Now.UnixMicro()}
	if e.Lifetime > 0 {
		query += ` AND (pusher = $4 OR NOT EXISTS (SELECT 1 FROM pushers p WHERE p.name = d.pusher AND p.seen_at > $5))`
		args = append(args, e.Relay, e.result.Now.Add(-e.Lifetime).UnixMicro())
	}
	args = append(args, int64(e.Due))
	query = fmt.Sprintf(`SELECT d.app, d.token, d.sequence, d.pusher, d.again, COALESCE(p.organization_id, 0)
		FROM (%s ORDER BY app, token LIMIT $%d) d
		LEFT JOIN shared_parts p ON p.app = d.app AND p.token = d.token AND (p.sequence > d.answered OR d.again AND p.state IN (%d, %d))
		ORDER BY d.app, d.token`, query, len(args), relay.PartFirstWaits, relay.PartNewerWaits)
	found := dueRows{relay: e.Relay, result: &e.result, passOver: e.passOver}
	e.queue(statement{query: query, args: args, each: func(row scanner) error {
		err := found.take(row)
		if found.devices == e.Due { // the last one, of which more rows may come
			e.result.Next = found.position
		}
		return err
	}})
}

// dueRows takes what is due: a row for each count that APNs has not answered, or one
// without an organization. Those of a device come one after the other.
type dueRows struct {
	relay    string // which asks
	result   *relay.ExchangeResult
	passOver func(table string, err error)
	position string // of the last device
	devices  int
	readable bool // it is the last one of result
}

func (r *dueRows) take(row scanner) error {
	var app, token raw
	var sequence, org int64
	var pusher string
	var again bool
	if err := row.Scan(&app, &token, &sequence, &pusher, &again, &org); err != nil {
		return err
	}
	if position := duePosition(app, token); position != r.position {
		r.position = position
		r.devices++
		device, err := apns.DeviceTokenFromBytes(token)
		if r.readable = err == nil; err != nil {
			r.passOver("shared_devices", err)
			return nil
		}
		r.result.Due = append(r.result.Due, relay.DueDevice{
			DeviceKey: relay.DeviceKey{App: string(app), Device: device}, Sequence: uint64(sequence), Ours: pusher == r.relay, Again: again,
		})
	}
	if org != 0 && r.readable {
		last := &r.result.Due[len(r.result.Due)-1]
		if id := relay.OrganizationID(org); !slices.Contains(last.Organizations, id) {
			last.Organizations = append(last.Organizations, id)
		}
	}
	return nil
}

// duePosition says where a question for what is due goes on: after this row.
func duePosition(app, token []byte) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(app)))) + string(app) + string(token)
}

// splitDuePosition returns the row of a position; what is none begins at the first.
func splitDuePosition(position string) (app, token []byte) {
	if len(position) < 4 {
		return []byte{}, []byte{}
	}
	n := int(binary.BigEndian.Uint32([]byte(position)))
	if n > len(position)-4 {
		return []byte{}, []byte{}
	}
	return []byte(position[4 : 4+n]), []byte(position[4+n:])
}
