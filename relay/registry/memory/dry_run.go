package memory

import (
	"maps"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// DryRun implements registry.Registry: it changes a copy, which nobody else has.
func (h *Handle) DryRun() registry.Changes {
	h.mu.Lock()
	closed := h.closed
	h.mu.Unlock()
	dry := h.database.clone().Open(Config{Reach: h.reach, Return: h.answer, Poll: h.poll, Logger: h.log})
	dry.closed = closed
	return dry
}

// clone returns a copy of the rows that registry.Changes are about.
func (d *Database) clone() *Database {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &Database{
		SubscriptionLifetime: d.SubscriptionLifetime, Now: d.Now, lastID: d.lastID, lastKey: d.lastKey,
		organizations: make(map[relay.OrganizationID]*organization, len(d.organizations)),
		credentials:   cloneRows(d.credentials),
		removedKeys:   maps.Clone(d.removedKeys),
		shared:        maps.Clone(d.shared),
	}
	for id, o := range d.organizations {
		one := *o
		one.subscriptions, one.removed = cloneRows(o.subscriptions), cloneRows(o.removed)
		one.superseded, one.mailboxes, one.writing = maps.Clone(o.superseded), maps.Clone(o.mailboxes), make(chan struct{}, 1)
		c.organizations[id] = &one
	}
	return c
}

func cloneRows[K comparable, V any](of map[K]*V) map[K]*V {
	c := make(map[K]*V, len(of))
	for key, v := range of {
		row := *v
		c[key] = &row
	}
	return c
}
