package memory

import (
	"context"
	"maps"
	"slices"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// scanBatch is how many entries Scan hands over at once; ours.
const scanBatch = 256

// Subscribe implements registry.Registry.
func (h *Handle) Subscribe(ctx context.Context, org relay.OrganizationID, r registry.Registration) (result registry.SubscribeResult, err error) {
	if err := r.Validate(); err != nil {
		return result, err
	}
	err = h.write(ctx, "subscribe", func(t *transaction) error {
		o, err := t.byID(org)
		if err != nil {
			return err
		}
		moves := t.moves(o)
		if result, err = moves.subscribe(r); err != nil {
			return err
		}
		moves.tell()
		return nil
	}, org)
	return result, err
}

// SetDevice implements registry.Registry.
func (h *Handle) SetDevice(ctx context.Context, org relay.OrganizationID, m registry.DeviceMailboxes) (result registry.SetDeviceResult, err error) {
	if err := m.Validate(); err != nil {
		return result, err
	}
	err = h.write(ctx, "set device", func(t *transaction) error {
		o, err := t.byID(org)
		if err != nil {
			return err
		}
		moves := t.moves(o)
		if result, err = moves.set(m); err != nil {
			return err
		}
		moves.tell()
		return nil
	}, org)
	return result, err
}

// ImportSubscriptions implements registry.Registry.
func (h *Handle) ImportSubscriptions(ctx context.Context, org relay.OrganizationID, rs []registry.Registration) (result registry.ImportResult, err error) {
	err = h.write(ctx, "import", func(t *transaction) error {
		o, err := t.byID(org)
		if err != nil {
			return err
		}
		moves := t.moves(o)
		for i, r := range rs {
			err := r.Validate()
			var one registry.SubscribeResult
			if err == nil {
				one, err = moves.subscribe(r)
			}
			switch {
			case err != nil:
				result.Rejections = append(result.Rejections, registry.Rejection{Index: i, Err: err})
			case one.Created:
				result.Created++
			default:
				result.Renewed++
			}
		}
		moves.tell()
		return nil
	}, org)
	return result, err
}

// Unsubscribe implements registry.Registry.
func (h *Handle) Unsubscribe(ctx context.Context, org relay.OrganizationID, r registry.Registration) error {
	if err := r.Validate(); err != nil {
		return err
	}
	found := false
	err := h.write(ctx, "unsubscribe", func(t *transaction) error {
		o, at := t.known(org), place{r.Mailbox, installation{r.App, r.Device}}
		if found = o != nil && o.subscriptions[at] != nil; found {
			t.drop(o, at)
		} else if o != nil && o.removed[at] != nil {
			o.superseded[at] = true
		}
		return nil
	}, org)
	if err == nil && !found {
		return registry.ErrSubscriptionNotFound
	}
	return err
}

// drop ends a subscription and tells it.
func (t *transaction) drop(o *organization, at place) {
	o.leave(at)
	t.changeSum(at.installation)
	t.changes = append(t.changes, o.change(registry.ChangeUnsubscribed, at.mailbox))
}

// Remove implements registry.Registry.
func (h *Handle) Remove(ctx context.Context, removals []relay.Removal) (removed []bool, err error) {
	if len(removals) == 0 {
		return nil, nil
	}
	var ids []relay.OrganizationID
	for _, r := range removals {
		ids = append(ids, r.Key.Organization)
	}
	removed = make([]bool, len(removals))
	err = h.write(ctx, "remove", func(t *transaction) error {
		for i, r := range removals {
			removed[i] = t.remove(r)
		}
		return nil
	}, ids...)
	if err != nil {
		return nil, err
	}
	return removed, nil
}

// remove ends one subscription and remembers why.
func (t *transaction) remove(r relay.Removal) bool {
	o, at := t.known(r.Key.Organization), place{r.Key.Mailbox, installation{r.App, r.Device}}
	if o == nil || o.subscriptions[at] == nil {
		return false
	}
	sub := o.subscriptions[at]
	if !r.Timestamp.IsZero() && sub.RegisteredAt.UnixMilli() >= r.Timestamp.UnixMilli() {
		return false
	}
	gone := *sub
	gone.RemovedAt, gone.RemovalReason = t.at, r.Reason
	o.removed[at] = &gone
	delete(o.superseded, at)
	t.drop(o, at)
	return true
}

// purgeInterval is how often a handle's Run looks for what has expired.
const purgeInterval = time.Hour

// purge ends subscriptions whose lifetime has passed, and forgets removed ones.
func (h *Handle) purge(ctx context.Context) {
	d := h.database
	d.mu.Lock()
	ids := slices.Collect(maps.Keys(d.organizations))
	d.mu.Unlock()
	err := h.write(ctx, "purge", func(t *transaction) error {
		for _, id := range ids {
			o := t.organizations[id]
			if o == nil {
				continue
			}
			if t.isRemoved(id) && t.at.Sub(o.RemovedAt) >= registry.RemovedRetention {
				t.forgetOrganization(id)
				continue
			}
			for _, sub := range sorted(o.subscriptions) {
				if !t.isRemoved(id) && !sub.ExpiresAt.IsZero() && !sub.ExpiresAt.After(t.at) && t.budget(sub.App).Take(1, t.at) > 0 {
					t.remove(relay.Removal{Key: relay.MailboxKey{Organization: id, Mailbox: sub.Mailbox}, App: sub.App, Device: sub.Device, Reason: registry.ReasonExpired})
				}
			}
			maps.DeleteFunc(o.removed, func(_ place, s *registry.Subscription) bool {
				return t.at.Sub(s.RemovedAt) >= registry.RemovedRetention
			})
		}
		return nil
	}, ids...)
	if err != nil && ctx.Err() == nil {
		h.log.Warn("could not purge registry", "error", err)
	}
}

// Lookup implements relay.Subscriptions.
func (h *Handle) Lookup(ctx context.Context, keys []relay.MailboxKey) (found [][]relay.Subscription, err error) {
	found = make([][]relay.Subscription, len(keys))
	err = h.read(ctx, "lookup", func(d *Database) error {
		for i, key := range keys {
			o := d.organizations[key.Organization]
			if o == nil || o.mailboxes[key.Mailbox] == 0 || d.isRemoved(key.Organization) {
				continue
			}
			for _, s := range sorted(o.subscriptions) {
				if s.Mailbox == key.Mailbox {
					found[i] = append(found[i], relay.Subscription{App: s.App, Device: s.Device, RegisteredAt: s.RegisteredAt, Quarantine: s.Quarantine,
						Shared: d.isShared(installation{s.App, s.Device})})
				}
			}
		}
		return nil
	})
	return found, err
}

// Scan implements relay.Subscriptions.
func (h *Handle) Scan(ctx context.Context, fn func(batch []registry.Entry) error) error {
	var all []registry.Entry
	err := h.read(ctx, "scan", func(d *Database) error {
		for _, id := range slices.Sorted(maps.Keys(d.organizations)) {
			if d.isRemoved(id) {
				continue
			}
			for _, s := range sorted(d.organizations[id].subscriptions) {
				all = append(all, registry.Entry{
					Key:          relay.MailboxKey{Organization: id, Mailbox: s.Mailbox},
					Subscription: relay.Subscription{App: s.App, Device: s.Device, RegisteredAt: s.RegisteredAt, Quarantine: s.Quarantine},
				})
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(all, scanBatch) {
		if err := fn(batch); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// ListSubscriptions implements registry.Registry.
func (h *Handle) ListSubscriptions(ctx context.Context, f registry.SubscriptionFilter, page registry.Page) (subs []registry.Subscription, next string, err error) {
	size, after, err := f.Position(page)
	if err != nil {
		return nil, "", err
	}
	err = h.read(ctx, "list", func(d *Database) error {
		o, err := d.byID(f.Organization)
		if err != nil {
			return err
		}
		list := o.subscriptions
		if f.Removed {
			list = o.removed
		}
		for _, s := range sorted(list) {
			key := []string{s.Mailbox, s.App, string(s.Device.AppendRaw(nil))}
			if (f.Mailbox == "" || s.Mailbox == f.Mailbox) && (after == nil || slices.Compare(key, after) > 0) && len(subs) <= size {
				sub := *s
				if !f.Removed {
					sub.OtherMailboxes = o.others(placeOf(s))
				}
				subs = append(subs, sub)
			}
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	subs, next = f.Cut(subs, size)
	return subs, next, nil
}

// Mailboxes implements registry.Registry.
func (h *Handle) Mailboxes(ctx context.Context, org relay.OrganizationID, after string, limit int) (mailboxes []string, err error) {
	err = h.read(ctx, "mailboxes", func(d *Database) error {
		o := d.known(org)
		if o == nil {
			return nil
		}
		for _, mailbox := range slices.Sorted(maps.Keys(o.mailboxes)) {
			if mailbox > after && len(mailboxes) < limit {
				mailboxes = append(mailboxes, mailbox)
			}
		}
		return nil
	})
	return mailboxes, err
}
