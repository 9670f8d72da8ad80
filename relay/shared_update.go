package relay

import "slices"

// touch has the device exchanged with the registry, in the organization's turn: the
// backlog of another one that waits for it too does not delay it. The caller holds
// d.mu.
func (d *device) touch(org OrganizationID) {
	s := d.shared
	s.dirty = true
	if !slices.Contains(s.queuedFor, org) {
		s.queuedFor = append(s.queuedFor, org)
		d.app.relay.exchanger.queue.Add(org, queuedExchange{org, d})
	}
}

// touchForWaiting has the device exchanged on behalf of every organization that has an
// event waiting for it. The caller holds d.mu.
func (d *device) touchForWaiting() {
	waiting := false
	for i := range d.shared.stored {
		if c := &d.shared.stored[i]; c.open {
			waiting = true
			d.touch(c.target.mailbox.key.Organization)
		}
	}
	if !waiting {
		d.touch(d.org())
	}
}

// touchFor has the device exchanged on behalf of these organizations; where there are
// none, of one of its own. The caller holds d.mu.
func (d *device) touchFor(orgs []OrganizationID) {
	for _, org := range orgs {
		d.touch(org)
	}
	if len(orgs) == 0 {
		d.touch(d.org())
	}
}

// org returns an organization on whose behalf the device is exchanged.
func (d *device) org() OrganizationID {
	if len(d.targets) == 0 {
		return 0
	}
	return d.targets[0].mailbox.key.Organization
}

// touchAll has devices exchanged on behalf of the events that wait for them, once.
func touchAll(devices map[*device]struct{}) {
	for d := range devices {
		d.mu.Lock()
		if d.shared != nil && !d.gone {
			d.touchForWaiting()
		}
		d.mu.Unlock()
	}
	clear(devices)
}

// beginExchange takes the device out of an organization's turn, and reports whether
// it is to be exchanged: it may have been in another one's.
func (d *device) beginExchange(org OrganizationID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.shared
	if s == nil || d.gone {
		return false
	}
	s.queuedFor = slices.DeleteFunc(s.queuedFor, func(o OrganizationID) bool { return o == org })
	if !s.dirty {
		return false
	}
	if s.exchanging { // in this batch: it was touched after it had been taken for another turn
		d.touch(org)
		return false
	}
	s.dirty, s.exchanging = false, true
	return true
}

// endFailedExchange has the device exchanged again.
func (d *device) endFailedExchange(org OrganizationID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shared != nil && !d.gone {
		d.shared.exchanging = false
		d.touch(org)
	}
}

// gather returns what the registry is to know of the device: the counts of its
// mailboxes that it does not have, and APNs' answers. told are those counts as they are
// kept here.
func (d *device) gather(r *Relay) (u SharedUpdate, told []storedCount) {
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
	u.Accepted, u.Refused, u.OneOrganization = s.acceptedSequence, s.refusal, d.app.oneOrganization.Load()
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
			told = append(told, c)
			u.Counts = append(u.Counts, count)
		}
	}
	return u, told
}

// received returns the newest count of the target's mailbox, as it is kept here and as it
// is told; false: none is known, or the device has left it.
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
