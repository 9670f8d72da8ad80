package relay

import (
	"slices"
	"time"

	"badgerelay/apns"
)

// sharedState is what this relay has of a shared device: the sum that it is to
// push, if it is the device's pusher, and which events wait for it. A nil one is
// that of a device on one mailbox.
//
// The device's lock guards it.
type sharedState struct {
	turns   []*orgStats   // of the organizations that wait for the sum to be pushed
	changed bool          // they have changed it; false: none has, and turns are of the one that did last
	stored  []storedCount // of the device's targets: their mailboxes' counts that the registry has

	pusher   bool           // the registry says that this relay pushes
	lease    uint64         // in which lease it said so
	ready    bool           // the sum lacks nothing that is about to come
	sequence uint64         // of the device's wanted count, whoever pushes it
	sent     uint64         // of the push in flight
	accepted uint64         // the last one that APNs accepted, by whatever relay
	refused  *SharedRefusal // the last one that APNs refused; nil: none

	windowEnds int64            // no push before; 0: at any time
	dirty      bool             // there is something to exchange
	queuedFor  []OrganizationID // in whose turns of the queue to be exchanged it is
	exchanging bool             // it is being exchanged
	inFlight   bool             // the push in flight is of a sum

	spared      map[MailboxKey]int64 // registrations, in Unix milliseconds, that a refusal from before them was spared for
	quarantined []MailboxKey         // parts whose refusals are forgotten when APNs accepts the device

	unshared targetResult    // whose count is in flight since before the device was shared; zero: nothing
	recalled []ReceivedCount // what this relay remembers of mailboxes that nobody has reported
}

// storedCount is a target's count that the registry has, or is just told.
type storedCount struct {
	target     *target
	event      uint32 // its number
	count      uint32
	sequence   uint64 // of the sums that hold it: from this one on; sequencePending: none does yet
	receivedAt int64
	open       bool // the event waits for APNs' answer
}

// result says how the count's event ended.
func (c *storedCount) result(end targetEnd) targetResult {
	return targetResult{target: c.target, event: c.event, end: end}
}

// replacedBy reports whether another relay has stored a newer count of the part.
func (c *storedCount) replacedBy(p *Part) bool {
	return p.NewestCount != c.count && (c.sequence == sequencePending || c.sequence < p.newestSequence())
}

// follow takes over from the part which sums hold the count.
func (c *storedCount) follow(p *Part) {
	if c.sequence != sequencePending && (!p.waits() || p.inSum() && p.Count == c.count) {
		c.sequence = max(c.sequence, p.Sequence) // it is in the sum, though it may be pushed anew with others
	} else {
		c.sequence = p.newestSequence()
	}
}

// answered returns the last sequence that APNs accepted or refused.
func (s *sharedState) answered() uint64 {
	if s.refused == nil {
		return s.accepted
	}
	return max(s.accepted, s.refused.Sequence)
}

// hasAccepted reports whether APNs accepted a sum with the count.
func (s *sharedState) hasAccepted(c *storedCount) bool { return c.sequence <= s.accepted }

// hasRefused reports whether APNs refused the sums with the count, and accepted none.
func (s *sharedState) hasRefused(c *storedCount) bool {
	return s.refused != nil && c.sequence <= s.refused.Sequence && !s.hasAccepted(c)
}

// wanted reports whether this relay has a sum to push.
func (s *sharedState) wanted() bool {
	return s != nil && s.pusher && s.ready && s.sequence > s.answered()
}

// exchangePending reports whether something is on its way to the registry or back.
func (s *sharedState) exchangePending() bool { return s != nil && (s.dirty || s.exchanging) }

// forget drops what is known of a target.
func (s *sharedState) forget(t *target) {
	for i := range s.stored {
		if s.stored[i].target == t {
			s.stored = append(s.stored[:i], s.stored[i+1:]...)
			return
		}
	}
}

// storedOf returns what the registry has of a target; nil: nothing.
func (s *sharedState) storedOf(t *target) *storedCount {
	for i := range s.stored {
		if s.stored[i].target == t {
			return &s.stored[i]
		}
	}
	return nil
}

// changedBy reports whether an organization has changed the sum that is to be pushed.
func (s *sharedState) changedBy(o *orgStats) bool {
	return s.wanted() && s.changed && slices.Contains(s.turns, o)
}

// countPending reports whether a target's count waits for others of its organization.
func (s *sharedState) countPending(t *target) bool {
	c := s.storedOf(t)
	return c != nil && c.sequence == sequencePending
}

// share has the device show the sum of its mailboxes from now on. A count
// that is desired goes into it. A device that does already is exchanged: an answer that is on
// its way may be older than what made it so. The caller holds d.mu.
func (d *device) share(org OrganizationID) {
	d.beginSharing()
	d.touch(org)
}

// beginSharing has the device show a sum, if it does not yet; the caller has it
// exchanged.
func (d *device) beginSharing() {
	if d.shared != nil {
		return
	}
	d.shared, d.wasShared = &sharedState{}, true
	if d.shownAt != 0 {
		d.shared.windowEnds = d.shownAt + d.app.relay.window
	}
	if d.stage == stageInFlight && d.desired != nil && d.want == d.sent {
		d.shared.unshared = targetResult{target: d.desired, event: d.event, end: endDelivered}
	}
	if d.desired != nil {
		d.touch(d.desired.mailbox.key.Organization) // its event waits for the exchange, whoever has come
	}
	d.desired, d.newer = nil, false
}

// touch has the device exchanged with the registry, in the organization's turn: the
// backlog of another one that waits for it too does not delay it. The caller holds
// d.mu.
func (d *device) touch(org OrganizationID) {
	s := d.shared
	s.dirty = true
	if !slices.Contains(s.queuedFor, org) {
		s.queuedFor = append(s.queuedFor, org)
		d.app.relay.sums.queue.Add(org, queuedExchange{org, d})
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

// storeCount has a target's newest count stored. The sum that holds it is wanted when
// the registry has it, which may be so already: what came for another mailbox took
// it along. The caller holds d.mu and the shard's lock.
func (d *device) storeCount(t *target, now int64) setResult {
	c := d.shared.storedOf(t)
	if c == nil || c.event != t.mailbox.event || d.shared.hasRefused(c) {
		d.shared.forget(t)
		d.touch(t.mailbox.key.Organization)
		return countGoing
	}
	if !d.shared.hasAccepted(c) {
		c.open = true
		d.touch(t.mailbox.key.Organization) // another relay may be the one that pushes
		return countGoing
	}
	if t.endAccepted(c.count, now) == endDelivered {
		t.delivered = c.event
	}
	return countShown
}

// startShared takes the sum for a push; false: the relay may not push at present.
// The caller holds d.mu.
func (d *device) startShared(req *apns.Request, r *Relay) bool {
	deadline, ok := r.sums.mayPush(d.shared.lease)
	if !ok {
		d.shared.ready = false
		d.touchForWaiting()
		return false
	}
	r.sums.inFlight.Add(1)
	req.Deadline = deadline
	d.shared.inFlight = true
	d.shared.sent = d.shared.sequence
	if r.window > 0 {
		d.shared.windowEnds = r.now() + r.window
	}
	return true
}

// endSharedPush notes that the push in flight is over. One that failed opens no
// window. The caller holds d.mu.
func (d *device) endSharedPush(verdict apns.Verdict, r *Relay) {
	if d.shared.inFlight {
		d.shared.inFlight = false
		r.sums.inFlight.Add(-1)
	}
	if verdict != apns.VerdictAccepted {
		d.shared.windowEnds = 0
	}
}

// org returns an organization on whose behalf the device is exchanged.
func (d *device) org() OrganizationID {
	if len(d.targets) == 0 {
		return 0
	}
	return d.targets[0].mailbox.key.Organization
}

// acceptedShared settles what APNs accepted. The caller holds d.mu.
func (d *device) acceptedShared(res *apns.Result, r *Relay, acts *actions) {
	s := d.shared
	s.accepted = max(s.accepted, s.sent)
	for _, key := range s.quarantined {
		acts.accepted = append(acts.accepted, Subscriber{key, d.app.name, d.token})
	}
	s.quarantined = nil
	if s.unshared.target != nil {
		s.unshared.end = s.unshared.target.endAccepted(d.sent, r.now())
		acts.results = append(acts.results, s.unshared)
	}
	if !res.WrittenAt.IsZero() {
		for _, c := range s.stored {
			if c.open && c.sequence <= s.sent {
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
	if had := d.shared.refused; had == nil || had.Sequence < f.Sequence {
		d.shared.refused = f
		d.touchForWaiting()
		d.settleRefused(acts)
	}
}

// settleRefused acts on the last refusal. A dead device ends the subscriptions of
// those organizations alone whose events wait for it: the others learn of it from
// their own next one. The caller holds d.mu.
func (d *device) settleRefused(acts *actions) {
	f := d.shared.refused
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
		if !c.open || c.sequence > d.shared.sent {
			continue
		}
		traceID := r.watches.tell(c.target.mailbox.key, d.app.name, res, acts)
		if traceID != "" && res.Err == nil && !res.WrittenAt.IsZero() {
			r.exemplars.set(traceID, max(0, int64(res.WrittenAt.Sub(r.start))-c.receivedAt))
		}
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
	u.Accepted, u.Refused, u.OneOrganization = s.accepted, s.refused, d.app.oneOrganization.Load()
	u.Counts, s.recalled = s.recalled, nil
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
	return c, ReceivedCount{m.key, m.unread, r.sums.sharedTime(m.receivedAt)}, true
}

// applyShared takes over what the registry says of the device; told are the counts that
// it was just told. It reports whether events wait for what the registry says next: that
// another relay has pushed, or that their organization is enabled again; and whether there
// are pending counts, which another relay may have newer ones of.
func (d *device) applyShared(st *SharedDevice, told []storedCount, now time.Time, r *Relay, acts *actions) (waits, pending bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.shared
	if s == nil || d.gone {
		return false, false
	}
	s.exchanging = false
	s.accepted = max(s.accepted, st.Accepted)
	if st.Refused != nil && (s.refused == nil || s.refused.Sequence < st.Refused.Sequence) {
		s.refused = st.Refused
	}
	for i := range told {
		s.forget(told[i].target)
	}
	s.stored = append(s.stored, told...)
	waits = s.followParts(st, r.now(), acts)
	d.takeSum(st, now, r)
	d.settleAccepted(r.now(), acts)
	if s.refused != nil {
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
// whether an event waits for its organization to be enabled, or for the end of its stream, which
// this relay has not heard of yet.
func (s *sharedState) followParts(st *SharedDevice, now int64, acts *actions) (waits bool) {
	on := s.stored[:0]
	for _, c := range s.stored {
		p := st.part(c.target.mailbox.key)
		switch {
		case p == nil: // the subscription has ended: the mailbox is about to hear of it
		case !p.reported(): // it is there anew, or begins anew: the count is stored once more
		case p.OtherOrganization:
			if c.open {
				acts.results = append(acts.results, c.result(endDisabled))
			}
		case p.Disabled:
			waits = waits || c.open
		case c.replacedBy(p):
			if c.open {
				acts.results = append(acts.results, c.result(s.endReplaced(&c, p, now)))
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

// endReplaced returns how an event ends whose count another relay's newer one replaced:
// APNs may have accepted a sum with it before.
func (s *sharedState) endReplaced(c *storedCount, p *Part, now int64) targetEnd {
	if s.hasAccepted(c) && s.accepted < p.newestSequence() {
		return c.target.endAccepted(c.count, now)
	}
	return endPreempted
}

// takeSum takes over the sum, and who pushes it. The caller holds d.mu.
func (d *device) takeSum(st *SharedDevice, now time.Time, r *Relay) {
	s := d.shared
	s.pusher, s.lease = st.Pusher == r.instance, r.sums.leaseNumber()
	s.ready = st.Ready(now)
	if len(s.recalled) > 0 { // what this relay remembers comes first, in the turns of who waits for it
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

// unshare has the device show its one mailbox's count again. It returns the targets
// whose counts have to be set anew. The caller holds d.mu.
func (d *device) unshare() (targets []*target) {
	d.endSharedPush(apns.VerdictAccepted, d.app.relay)
	d.shared, d.shownAt, d.shownBy = nil, 0, 0
	return append([]*target(nil), d.targets...)
}
