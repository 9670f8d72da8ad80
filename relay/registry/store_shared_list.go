package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"badgerelay/apns"
	"badgerelay/relay"
)

// SharedDevices implements relay.SharedRegistry.
func (s *store) SharedDevices(ctx context.Context, fn func(batch []relay.DeviceKey) error) (err error) {
	defer func() {
		if e, ok := errors.AsType[*callbackError](err); ok {
			err = e.error
		}
	}()
	defer s.done(ctx, opScan, time.Now(), &err)
	apps := names{}
	batch := make([]relay.DeviceKey, 0, scanBatch)
	flush := func() error {
		if err := fn(batch); err != nil {
			return &callbackError{err}
		}
		batch = batch[:0]
		return nil
	}
	err = s.query(ctx, `SELECT app, token FROM shared_devices`, nil, func(row scanner) error {
		var app, token raw
		if err := row.Scan(&app, &token); err != nil {
			return err
		}
		device, err := apns.DeviceTokenFromBytes(token)
		if err != nil {
			s.passOver("shared_devices", err)
			return nil
		}
		if batch = append(batch, relay.DeviceKey{App: apps.of(app), Device: device}); len(batch) < scanBatch {
			return nil
		}
		return flush()
	})
	if err != nil || len(batch) == 0 {
		return err
	}
	return flush()
}

// maxSharedDevicesOf is how many shared devices of a mailbox are read at once.
const maxSharedDevicesOf = 1000

// SharedDevicesOf implements Registry.
func (s *store) SharedDevicesOf(ctx context.Context, key relay.MailboxKey) (devices []relay.SharedDevice, err error) {
	defer s.done(ctx, opShared, time.Now(), &err)
	err = s.query(ctx, fmt.Sprintf(`SELECT d.app, d.token, d.sequence, d.accepted, d.refusal, d.summed, d.pusher, d.push_again_at,
		p.organization_id, p.mailbox, p.disabled, p.joined_at, p.state, p.count, p.newest_count, p.sequence,
		p.received_at, p.stored_at
		FROM (SELECT d.* FROM subscriptions s JOIN shared_devices d ON d.app = s.app AND d.token = s.token
			WHERE s.organization_id = $1 AND s.mailbox = $2 ORDER BY d.app, d.token LIMIT %d) d
		JOIN shared_parts p ON p.app = d.app AND p.token = d.token
		ORDER BY d.app, d.token, p.organization_id, p.mailbox`, maxSharedDevicesOf), []any{int64(key.Organization), []byte(key.Mailbox)},
		func(row scanner) error {
			var r sharedRecord
			var p partRecord
			if err := row.Scan(append(r.fields(), p.fields()...)...); err != nil {
				return err
			}
			d, err := r.device()
			if err != nil {
				s.passOver("shared_devices", err)
			}
			if d.Device.IsZero() {
				return nil
			}
			if last := len(devices) - 1; last < 0 || devices[last].DeviceKey != d.DeviceKey {
				devices = append(devices, d)
			}
			last := &devices[len(devices)-1]
			last.Parts = append(last.Parts, p.part())
			return nil
		})
	return devices, err
}

// sharedRecord is a row of shared_devices. Its bytes are lent.
type sharedRecord struct {
	app, token, refusal           raw
	sequence, accepted, pushAgain int64
	summed                        bool
	pusher                        string
}

// fields returns where a row of app, token, sequence, accepted, refusal, summed, pusher
// and push_again_at goes.
func (r *sharedRecord) fields() []any {
	return []any{&r.app, &r.token, &r.sequence, &r.accepted, &r.refusal, &r.summed, &r.pusher, &r.pushAgain}
}

// device returns what the row says. With an error the device is as far as it can be
// read; without a token it can't be at all.
func (r *sharedRecord) device() (d relay.SharedDevice, err error) {
	if d.Device, err = apns.DeviceTokenFromBytes(r.token); err != nil {
		return d, err
	}
	d.App, d.Shared, d.Summed, d.Pusher = string(r.app), true, r.summed, strings.Clone(r.pusher)
	d.Sequence, d.Accepted, d.PushAgainAt = uint64(r.sequence), uint64(r.accepted), fromMicros(r.pushAgain)
	d.Refused, err = decodeSharedRefusal(r.refusal)
	return d, err
}

// partRecord is a row of shared_parts without its device.
type partRecord struct {
	mailbox                                                raw
	org, joined, state, count, newest, seq, received, kept int64
	disabled                                               bool
}

// fields returns where a row of organization_id, mailbox, disabled, joined_at, state,
// count, newest_count, sequence, received_at and stored_at goes.
func (r *partRecord) fields() []any {
	return []any{&r.org, &r.mailbox, &r.disabled, &r.joined, &r.state, &r.count, &r.newest, &r.seq, &r.received, &r.kept}
}

func (r *partRecord) part() relay.Part {
	return relay.Part{
		Key:      relay.MailboxKey{Organization: relay.OrganizationID(r.org), Mailbox: string(r.mailbox)},
		Disabled: r.disabled, JoinedAt: fromMicros(r.joined), State: relay.PartState(r.state), Count: uint32(r.count), NewestCount: uint32(r.newest),
		Sequence: uint64(r.seq), ReceivedAt: fromMicros(r.received), StoredAt: fromMicros(r.kept),
	}
}
