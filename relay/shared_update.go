package relay

import "slices"

// gather returns what the registry is to know of the device: the counts of its
// mailboxes that it does not have, and APNs' answers. brought are those counts as they
// are kept here.
func (d *device) gather(r *Relay) (u SharedUpdate, brought []storedCount) {
	d.mu.Lock()
	s := d.shared
	u.DeviceKey = DeviceKey{d.app.name, d.token}
	if s == nil || d.gone {
		d.mu.Unlock()
		return u, nil
	}
	targets := append([]*target(nil), d.targets...)
	stored := make(map[*target]storedCount, len(targets))
	for _, c := range s.stored {
		stored[c.target] = c
	}
	u.Sequence, u.Accepted, u.Refused, u.OneOrganization = s.sequence, s.acceptedSequence, s.refusal, d.app.oneOrganization.Load()
	u.Counts, s.remembered = s.remembered, nil
	now := r.now()
	if st := &d.app.stall; st.stalled && !st.isProbe(u.DeviceKey, now) && d.mayYield(now) {
		u.Yield, s.pusher = true, false
	}
	d.mu.Unlock()
	for _, t := range targets {
		c, count, ok := t.received(r)
		had, has := stored[t]
		// A count that was stored while its window held it may wait for the device by
		// now, unnoticed by the exchange that was under way.
		if ok && (!has || had.event != c.event || c.open && !had.open) {
			brought = append(brought, c)
			u.Counts = append(u.Counts, count)
		}
	}
	return u, brought
}

// received returns the newest count of the target's mailbox, as it is kept here and as an
// exchange brings it; false: none is known, or the device has left it.
func (t *target) received(r *Relay) (c storedCount, count ReceivedCount, ok bool) {
	m := t.mailbox
	m.shard.mu.Lock()
	defer m.shard.mu.Unlock()
	if !m.counted || !m.has(t) || t.isRefused() {
		return c, count, false
	}
	c = storedCount{target: t, event: m.event, count: m.unread, sequence: sequencePending, receivedAt: m.receivedAt, open: m.pending && t.outstanding}
	return c, ReceivedCount{m.key, m.unread, r.exchanger.sharedTime(m.receivedAt)}, true
}

// bringRemembered has the next exchange bring a count that this relay remembers.
func (d *device) bringRemembered(c ReceivedCount) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shared != nil && !slices.Contains(d.shared.remembered, c) {
		d.shared.remembered = append(d.shared.remembered, c)
		d.touch(c.Key.Organization)
	}
}

// rememberedCount returns the newest count that this relay remembers of a mailbox.
func (r *Relay) rememberedCount(key MailboxKey) (c ReceivedCount, ok bool) {
	sh, hash := r.shardOf(key.Organization, key.Mailbox)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if m := sh.active.find(hash, key); m != nil {
		return ReceivedCount{key, m.unread, r.exchanger.sharedTime(m.receivedAt)}, m.counted
	}
	e, found := sh.compact.get(hash)
	if !found || e.key() != key {
		return c, false
	}
	reader := mailboxDecoder{left: e}
	reader.skipKey()
	_, receivedAt := reader.order()
	return ReceivedCount{key, reader.unread, r.exchanger.sharedTime(receivedAt)}, reader.counted
}
