package memory

import (
	"context"
	"maps"
	"slices"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// Restore implements registry.Registry. Each organization is one transaction.
func (h *Handle) Restore(ctx context.Context, r registry.RestoreRequest, tell func([]registry.Restoration) error) error {
	if err := r.Validate(); err != nil {
		return err
	}
	var ids []relay.OrganizationID
	err := h.read(ctx, "restore", func(d *Database) error {
		if ids = slices.Sorted(maps.Keys(d.organizations)); r.Organization == 0 {
			return nil
		}
		ids = []relay.OrganizationID{r.Organization}
		_, err := d.byID(r.Organization)
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		var done []registry.Restoration
		err := h.write(ctx, "restore", func(t *transaction) error {
			if o := t.known(id); o != nil {
				done = t.restore(o, r)
			}
			return nil
		}, id)
		if err != nil {
			return err
		}
		for part := range slices.Chunk(done, 1000) {
			if err := tell(part); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *transaction) restore(o *organization, r registry.RestoreRequest) (done []registry.Restoration) {
	var came []place
	for _, gone := range sorted(o.removed) {
		if r.Fits(gone) && t.at.Sub(gone.RemovedAt) < registry.RemovedRetention {
			err := t.restoreOne(o, gone)
			done = append(done, registry.Restoration{OrganizationName: o.Name, Subscription: *gone, Err: err})
			if err == nil {
				came = append(came, placeOf(gone))
			}
		}
	}
	told := map[string]bool{}
	for _, at := range came {
		delete(o.removed, at)
		if !told[at.mailbox] {
			t.changes = append(t.changes, o.change(registry.ChangeSubscribed, at.mailbox))
		}
		told[at.mailbox] = true
		if len(o.on(at.installation)) > 1 {
			t.tellShared(at.installation)
		}
	}
	return done
}

func placeOf(s *registry.Subscription) place { return place{s.Mailbox, installation{s.App, s.Device}} }

// restoreOne puts a device back; it is still among the removed ones.
func (t *transaction) restoreOne(o *organization, gone *registry.Subscription) error {
	at := placeOf(gone)
	if o.superseded[at] {
		return registry.ErrSuperseded
	}
	if err := t.moves(o).allow(at.installation, []string{at.mailbox}, nil, true); err != nil {
		return err
	}
	sub := &registry.Subscription{Organization: o.ID, Mailbox: gone.Mailbox, App: gone.App, Device: gone.Device, CreatedAt: gone.CreatedAt, RegisteredAt: t.at}
	if t.SubscriptionLifetime > 0 {
		sub.ExpiresAt = t.at.Add(t.SubscriptionLifetime)
	}
	o.enter(sub)
	o.removed[at] = gone
	return nil
}
