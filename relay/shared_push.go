package relay

import "badgerelay/apns"

// The push of a sum: what differs from the push of one mailbox's count.

// startShared takes the sum for a push; false: the relay may not push at present.
// The caller holds d.mu.
func (d *device) startShared(req *apns.Request, r *Relay) bool {
	deadline, ok := r.exchanger.mayPush(d.shared.lease)
	if !ok {
		d.shared.ready = false
		d.touchForWaiting()
		return false
	}
	r.exchanger.inFlight.Add(1)
	req.Deadline = deadline
	d.shared.inFlight = true
	d.shared.sentSequence = d.shared.sequence
	if r.window > 0 {
		d.shared.windowEnds = r.now() + r.window
	}
	return true
}

// endSharedPush notes that the push in flight is over. The caller holds d.mu.
func (d *device) endSharedPush(r *Relay) {
	if d.shared.inFlight {
		d.shared.inFlight = false
		r.exchanger.inFlight.Add(-1)
	}
}

// acceptedShared settles what APNs accepted. The caller holds d.mu.
func (d *device) acceptedShared(res *apns.Result, r *Relay, acts *actions) {
	s := d.shared
	s.acceptedSequence = max(s.acceptedSequence, s.sentSequence)
	for _, key := range s.quarantined {
		acts.lifted = append(acts.lifted, Subscriber{key, d.app.name, d.token})
	}
	s.quarantined = nil
	if s.sentBefore.target != nil {
		s.sentBefore.end = s.sentBefore.target.endAccepted(d.sent, r.now())
		acts.results = append(acts.results, s.sentBefore)
	}
	if !res.WrittenAt.IsZero() {
		for _, c := range s.stored {
			if c.open && c.sequence <= s.sentSequence {
				r.pushLatency.observe(max(0, int64(res.WrittenAt.Sub(r.start))-c.receivedAt))
			}
		}
	}
	d.touchForWaiting()
	d.settleAccepted(r.now(), acts)
}

// settleAccepted ends what waits for counts that APNs accepted. The caller holds d.mu.
func (d *device) settleAccepted(now int64, acts *actions) {
	for i := range d.shared.stored {
		c := &d.shared.stored[i]
		if c.open && d.shared.hasAccepted(c) {
			c.open = false
			acts.results = append(acts.results, c.result(c.target.endAccepted(c.count, now)))
		}
	}
}

// refusedShared notes that APNs refused a sum for good. The caller holds d.mu.
func (d *device) refusedShared(f *SharedRefusal, acts *actions) {
	if had := d.shared.refusal; had == nil || had.Sequence < f.Sequence {
		d.shared.refusal = f
		d.touchForWaiting()
		d.settleRefused(acts)
	}
}

// settleRefused acts on the last refusal. A dead device ends the subscriptions of
// those organizations alone whose events wait for it: the others learn of it from
// their own next one. The caller holds d.mu.
func (d *device) settleRefused(acts *actions) {
	f := d.shared.refusal
	concerned := map[OrganizationID]bool{}
	for i := range d.shared.stored {
		c := &d.shared.stored[i]
		if !c.open || !d.shared.hasRefused(c) {
			continue
		}
		if f.Dropped {
			c.open = false
			acts.results = append(acts.results, targetResult{target: c.target, event: c.event, end: endDropped, reason: f.Reason})
			continue
		}
		concerned[c.target.mailbox.key.Organization] = true
	}
	for _, t := range d.targets {
		if !concerned[t.mailbox.key.Organization] || t.refused {
			continue
		}
		d.shared.forget(t) // its count is stored anew if the subscription goes on
		if d.shared.spares(t, f) {
			d.touch(t.mailbox.key.Organization)
			continue
		}
		d.haveJudged(t, f, acts)
	}
}

// spares reports whether a target was registered since the push was sent that APNs
// refused, maybe by another relay: its count goes out anew. Clocks that differ make that
// one push more for a registration at most.
func (s *sharedState) spares(t *target, f *SharedRefusal) bool {
	key := t.mailbox.key
	if t.registeredAt <= f.SentAt.UnixMilli() || s.spared[key] == t.registeredAt {
		return false
	}
	if s.spared == nil {
		s.spared = map[MailboxKey]int64{}
	}
	s.spared[key] = t.registeredAt
	return true
}

// tracedShared tells who watches the mailboxes whose counts were pushed.
func (d *device) tracedShared(res *apns.Result, r *Relay, acts *actions) {
	for _, c := range d.shared.stored {
		if !c.open || c.sequence > d.shared.sentSequence {
			continue
		}
		traceID := r.watches.tell(c.target.mailbox.key, d.app.name, res, acts)
		if traceID != "" && res.Err == nil && !res.WrittenAt.IsZero() {
			r.exemplars.set(traceID, max(0, int64(res.WrittenAt.Sub(r.start))-c.receivedAt))
		}
	}
}
