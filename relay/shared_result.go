package relay

import "time"

// applyResult takes over what the registry says of a device.
func (e *exchanger) applyResult(d *device, st *SharedDevice, brought []storedCount, now time.Time, acts *actions) {
	r := e.relay
	if !st.Shared {
		e.applyUnshared(d, st, acts)
		return
	}
	r.devices.noteShared(deviceKey{d.app, d.token})
	for i := range st.Parts {
		p := &st.Parts[i]
		if c, ok := r.rememberedCount(p.Key); ok && (!p.reported() || c.Count != p.NewestCount && c.ReceivedAt.After(p.ReceivedAt)) {
			d.bringRemembered(c)
		}
	}
	waits, pending := d.applyShared(st, brought, now, r, acts)
	if waits {
		e.elsewhere[d] = struct{}{}
	}
	if pending {
		e.pending[d] = struct{}{}
	}
}

// applyShared takes over what the registry says of the device; brought are the counts
// that the exchange brought it. It reports whether events wait for what the registry says
// next: for another relay's push, or as followParts says; and whether there are pending
// counts, which another relay may have newer ones of.
func (d *device) applyShared(st *SharedDevice, brought []storedCount, now time.Time, r *Relay, acts *actions) (waits, pending bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.shared
	if s == nil || d.gone {
		return false, false
	}
	s.exchanging = false
	s.acceptedSequence = max(s.acceptedSequence, st.Accepted)
	if st.Refused != nil && (s.refusal == nil || s.refusal.Sequence < st.Refused.Sequence) {
		s.refusal = st.Refused
	}
	for i := range brought {
		s.forget(brought[i].target)
	}
	s.stored = append(s.stored, brought...)
	waits = s.followParts(st, r.now(), acts)
	d.takeSum(st, now, r)
	d.settleAccepted(r.now(), acts)
	if s.refusal != nil {
		d.settleRefused(acts)
	}
	d.goOnShared(r, acts)
	for i := range s.stored {
		c := &s.stored[i]
		waits = waits || c.open && !s.pusher
		pending = pending || c.open && c.sequence == sequencePending
	}
	return waits, pending
}

// followParts is where it is decided what becomes of counts that the registry has. It goes by
// what their parts are now: these may have ended or been disabled since, and be there
// again, when a sum that was accepted meanwhile was one without the count; or another
// relay has stored a newer count. What goes on follows the sums that hold it. It reports
// whether an event waits because its organization is disabled: until that is enabled, or
// until this relay hears of it too and ends the stream.
func (s *sharedState) followParts(st *SharedDevice, now int64, acts *actions) (waits bool) {
	on := s.stored[:0]
	for _, c := range s.stored {
		p := st.part(c.target.mailbox.key)
		switch {
		case p == nil: // the subscription has ended: the mailbox is about to hear of it
		case !p.reported(): // it is there anew, or begins anew: the count is stored once more
		case p.OtherOrganization:
			if c.open {
				acts.results = append(acts.results, c.result(s.endBefore(&c, now, endOtherOrganization)))
			}
		case p.Disabled:
			if c.open {
				waits = true
				acts.results = append(acts.results, c.result(endDisabled))
			}
		case c.replacedBy(p):
			if c.open {
				end := endPreempted
				if s.acceptedSequence < p.newestSequence() {
					end = s.endBefore(&c, now, endPreempted)
				}
				acts.results = append(acts.results, c.result(end))
			}
		default:
			c.follow(p)
			on = append(on, c)
		}
	}
	clear(s.stored[len(on):])
	s.stored = on
	return waits
}

// endBefore returns how an event ends whose count goes no further: APNs may have accepted a
// sum with it before.
func (s *sharedState) endBefore(c *storedCount, now int64, end targetEnd) targetEnd {
	if s.hasAccepted(c) {
		return c.target.endAccepted(c.count, now)
	}
	return end
}

// takeSum takes over the sum, and who pushes it. The caller holds d.mu.
func (d *device) takeSum(st *SharedDevice, now time.Time, r *Relay) {
	s := d.shared
	s.pusher, s.lease = st.Pusher == r.instance, r.exchanger.leaseNumber()
	s.ready = st.Ready(now)
	if len(s.remembered) > 0 { // what this relay remembers comes first, in the turns of who waits for it
		s.ready = false
		d.touchForWaiting()
	}
	s.quarantined = nil
	for i := range st.Parts {
		if st.Parts[i].Quarantined {
			s.quarantined = append(s.quarantined, st.Parts[i].Key)
		}
	}
	if st.Sequence < s.sequence {
		return
	}
	s.sequence, d.want = st.Sequence, st.Sum()
	turns, changed := st.turns()
	s.turns, s.changed = s.turns[:0], changed
	for _, org := range turns {
		s.turns = append(s.turns, d.app.statsOf(org))
	}
}

// goOnShared puts the device where it belongs after an exchange.
func (d *device) goOnShared(r *Relay, acts *actions) {
	now := r.now()
	switch {
	case d.stage == stageWaiting && d.mayGo(now) && d.wanted():
		r.waits.Remove(d)
		d.enqueue(false)
		acts.wake(d.app)
	case d.stage == stageWaiting && d.wanted():
		r.waits.Set(d, d.waitUntil())
	case d.stage == stageQueued && d.wanted():
		d.enqueue(false) // an organization may have come that does not wait for the others' turns
		acts.wake(d.app)
	case d.stage == stageIdle:
		d.goOn(false, now, r, acts)
	}
}

// applyUnshared has a device that is on one mailbox show its count again. A mailbox that it has left
// may not have heard of it.
func (e *exchanger) applyUnshared(d *device, st *SharedDevice, acts *actions) {
	r := e.relay
	targets, done := r.devices.noteUnshared(d)
	if !done {
		return
	}
	var left []MailboxKey
	for _, t := range targets {
		if st.part(t.mailbox.key) == nil {
			left = append(left, t.mailbox.key)
			continue
		}
		r.setAnew(t, acts)
	}
	r.SubscriptionsChanged(left)
	acts.released = append(acts.released, d)
}

// takeDue has devices exchanged that wait for this relay's push, unless they are on
// their way already.
func (e *exchanger) takeDue(result *ExchangeResult) {
	r := e.relay
	if e.after = result.Next; e.after != "" {
		e.hint.fill() // there is more
	}
	for _, one := range result.Due {
		app := r.apps.named(one.App)
		if app == nil {
			continue // it is not configured any more
		}
		if app.stall.stalled && !one.Ours && !app.stall.try(one.DeviceKey, r.now()) {
			continue
		}
		r.devices.withShared(deviceKey{app, one.Device}, func(d *device) {
			if app.stall.stalled || !d.shared.wanted() || d.shared.sequence < one.Sequence || one.Again {
				d.touchFor(one.Organizations)
			}
		})
	}
}
