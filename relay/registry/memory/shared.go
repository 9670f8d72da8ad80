package memory

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// SharedDevices implements relay.SharedRegistry.
func (h *Handle) SharedDevices(ctx context.Context, fn func(batch []relay.DeviceKey) error) error {
	var keys []relay.DeviceKey
	err := h.read(ctx, "shared_devices", func(d *Database) error {
		keys = slices.SortedFunc(maps.Keys(d.shared), compareDevices)
		return nil
	})
	if err != nil || len(keys) == 0 {
		return err
	}
	return fn(keys)
}

// SharedDevicesOf implements registry.Registry.
func (h *Handle) SharedDevicesOf(ctx context.Context, key relay.MailboxKey) (devices []relay.SharedDevice, err error) {
	err = h.read(ctx, "shared_devices", func(d *Database) error {
		o := d.organizations[key.Organization]
		if o == nil {
			return nil
		}
		for at := range o.subscriptions {
			if shared, ok := d.shared[relay.DeviceKey{App: at.app, Device: at.device}]; ok && at.mailbox == key.Mailbox {
				shared.Parts = slices.Clone(shared.Parts)
				devices = append(devices, shared)
			}
		}
		slices.SortFunc(devices, func(a, b relay.SharedDevice) int { return compareDevices(a.DeviceKey, b.DeviceKey) })
		return nil
	})
	return devices, err
}

func compareDevices(a, b relay.DeviceKey) int {
	return cmp.Or(cmp.Compare(a.App, b.App), compareTokens(a.Device, b.Device))
}

// Exchange implements relay.SharedRegistry.
func (h *Handle) Exchange(ctx context.Context, x relay.ExchangeRequest) (result relay.ExchangeResult, err error) {
	concernsOthers := false
	err = h.write(ctx, "exchange", func(t *transaction) error {
		result, concernsOthers = t.exchange(&x)
		return nil
	})
	if err == nil && concernsOthers && x.Lifetime > 0 {
		h.hintSums()
	}
	return result, err
}

// hintSums tells the others that a sum may be wanted or was accepted.
func (h *Handle) hintSums() {
	h.database.mu.Lock()
	handles := append([]*Handle(nil), h.database.handles...)
	h.database.mu.Unlock()
	for _, to := range handles {
		if to == h {
			continue
		}
		h.carry(to, func() {
			to.mu.Lock()
			fn := to.sums
			to.mu.Unlock()
			if fn != nil {
				fn()
			}
		})
	}
}

// OnSumsChanged has fn called when another relay hints that sums of shared devices
// are wanted or were accepted. It may be lost.
func (h *Handle) OnSumsChanged(fn func()) (cancel func()) {
	set := func(fn func()) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.sums = fn
	}
	set(fn)
	return func() { set(nil) }
}

func (t *transaction) exchange(x *relay.ExchangeRequest) (result relay.ExchangeResult, concernsOthers bool) {
	result.Now = t.clock()
	for name, seen := range t.pushers {
		if x.Lifetime > 0 && seen.Sub(result.Now) >= x.Lifetime {
			t.pushers[name] = result.Now // the clock was set back: its silence begins now
		}
	}
	first := make(map[relay.DeviceKey]int, len(x.Devices))
	for i := range x.Devices {
		u := &x.Devices[i]
		if n, again := first[u.DeviceKey]; again {
			result.Devices = append(result.Devices, result.Devices[n])
			continue
		}
		first[u.DeviceKey] = i
		d, known := t.shared[u.DeviceKey]
		if !known {
			d.DeviceKey = u.DeviceKey
		}
		seen, pushes := t.pushers[d.Pusher]
		sequence, answered, behind := d.Sequence, d.Answered(), d.Behind(u)
		d.Merge(u, relay.ExchangeTerms{
			Relay: x.Relay, Now: result.Now, Lifetime: x.Lifetime, Stray: x.Stray, ShownFor: x.ShownFor, Live: t.placesOf(u.DeviceKey),
			PusherFree: !pushes || result.Now.Sub(seen) >= x.Lifetime, PusherSilent: pushes && result.Now.Sub(seen) >= x.Lifetime,
		})
		t.setShared(d)
		concernsOthers = concernsOthers || d.Sequence != sequence && d.Pusher != x.Relay || d.Answered() != answered
		if d.Shared && (!known || behind) || !d.Shared && known && x.Lifetime > 0 {
			t.changes = append(t.changes, registry.Change{Kind: registry.ChangeDeviceShared, App: d.App, Device: d.Device})
		}
		d.Parts = slices.Clone(d.Parts)
		result.Devices = append(result.Devices, d)
	}
	switch {
	case x.Lifetime == 0: // nobody else looks
	case x.Leave:
		delete(t.pushers, x.Relay)
	default:
		if t.pushers == nil {
			t.pushers = map[string]time.Time{}
		}
		t.pushers[x.Relay] = result.Now
	}
	t.findDue(x, &result)
	return result, concernsOthers || x.Leave
}

func (t *transaction) setShared(d relay.SharedDevice) {
	switch {
	case !d.Shared:
		delete(t.shared, d.DeviceKey)
		return
	case t.shared == nil:
		t.shared = map[relay.DeviceKey]relay.SharedDevice{}
	}
	t.shared[d.DeviceKey] = d
}

func (t *transaction) findDue(x *relay.ExchangeRequest, result *relay.ExchangeResult) {
	last := ""
	for _, key := range slices.SortedFunc(maps.Keys(t.shared), compareDevices) {
		d := t.shared[key]
		seen, pushes := t.pushers[d.Pusher]
		free := !pushes || result.Now.Sub(seen) >= x.Lifetime
		position := key.App + "\x00" + key.Device.Hex()
		if x.After < position && d.Due(x.Relay, x.Lifetime, free, result.Now) {
			if len(result.Due) == x.Due {
				result.Next = last
				return
			}
			result.Due = append(result.Due, relay.DueDevice{
				DeviceKey: key, Sequence: d.Sequence, Ours: d.Pusher == x.Relay, Again: d.Again(result.Now), Organizations: d.Waiting(result.Now),
			})
			last = position
		}
	}
}

// placesOf returns every subscription of a device; the caller holds mu.
func (d *Database) placesOf(key relay.DeviceKey) (live []relay.LivePart) {
	for id, o := range d.organizations {
		for at, s := range o.subscriptions {
			if at.app == key.App && at.device == key.Device {
				live = append(live, relay.LivePart{Key: relay.MailboxKey{Organization: id, Mailbox: at.mailbox},
					Disabled: !o.Enabled || !o.RemovedAt.IsZero(), Quarantined: s.Quarantine != nil, CreatedAt: s.CreatedAt, RegisteredAt: s.RegisteredAt})
			}
		}
	}
	return live
}

// changeSum counts the sum of a device as another.
func (t *transaction) changeSum(i installation) {
	key := relay.DeviceKey{App: i.app, Device: i.device}
	if d, shared := t.shared[key]; shared {
		d.Sequence++
		t.shared[key] = d
	}
}

// changeSumsOf counts the sums of the devices on an organization's mailboxes as others.
func (t *transaction) changeSumsOf(o *organization) {
	for at := range o.subscriptions {
		t.changeSum(at.installation)
	}
}

// isShared reports whether a device is on several mailboxes; the caller holds mu.
func (d *Database) isShared(i installation) bool {
	key := relay.DeviceKey{App: i.app, Device: i.device}
	_, shared := d.shared[key]
	return shared || len(d.placesOf(key)) > 1
}

// clock is now, to the microsecond: it orders counts.
func (d *Database) clock() time.Time {
	now := time.Now
	if d.Now != nil {
		now = d.Now
	}
	return now().UTC().Truncate(time.Microsecond)
}
