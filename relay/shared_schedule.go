package relay

import "slices"

// When a shared device is exchanged, and in whose turn.

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

// beginExchanges returns the devices that are to be exchanged of those that are queued,
// each once.
func beginExchanges(queued []queuedExchange, into []*device) []*device {
	for _, q := range queued {
		if q.device.beginExchange(q.org) {
			into = append(into, q.device)
		}
	}
	return into
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

// endFailedExchanges has the devices that were queued exchanged again.
func endFailedExchanges(queued []queuedExchange) {
	for _, q := range queued {
		q.device.endFailedExchange(q.org)
	}
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
