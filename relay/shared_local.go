package relay

import (
	"slices"

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

	pusher           bool           // the registry says that this relay pushes
	lease            uint64         // in which lease it said so
	ready            bool           // the sum lacks nothing that is about to come, and its lease has not run out
	sequence         uint64         // of the device's wanted count, whoever pushes it
	sentSequence     uint64         // of the push in flight
	acceptedSequence uint64         // the last one that APNs accepted, by whatever relay
	refusal          *SharedRefusal // the last one that APNs refused; nil: none

	windowEnds int64            // no push before; 0: at any time
	dirty      bool             // there is something to exchange
	queuedFor  []OrganizationID // in whose turns of the queue to be exchanged it is
	exchanging bool             // it is being exchanged
	inFlight   bool             // the push in flight is of a sum

	spared      map[MailboxKey]int64 // registrations, in Unix milliseconds, that a refusal from before them was spared for
	quarantined []MailboxKey         // parts whose refusals are forgotten when APNs accepts the device

	sentBefore targetResult    // whose count is in flight since before the device was shared; zero: nothing
	remembered []ReceivedCount // what this relay remembers of mailboxes that nobody has reported
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
	if c.sequence != sequencePending && (!p.waits() || p.hasCount() && p.Count == c.count) {
		c.sequence = max(c.sequence, p.Sequence) // it is in the sum, though it may be pushed anew with others
	} else {
		c.sequence = p.newestSequence()
	}
}

// answered returns the last sequence that APNs accepted or refused.
func (s *sharedState) answered() uint64 {
	if s.refusal == nil {
		return s.acceptedSequence
	}
	return max(s.acceptedSequence, s.refusal.Sequence)
}

// hasAccepted reports whether APNs accepted a sum with the count.
func (s *sharedState) hasAccepted(c *storedCount) bool { return c.sequence <= s.acceptedSequence }

// hasRefused reports whether APNs refused the sums with the count, and accepted none.
func (s *sharedState) hasRefused(c *storedCount) bool {
	return s.refusal != nil && c.sequence <= s.refusal.Sequence && !s.hasAccepted(c)
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
		d.shared.sentBefore = targetResult{target: d.desired, event: d.event, end: endDelivered}
	}
	if d.desired != nil {
		d.touch(d.desired.mailbox.key.Organization) // its event waits for the exchange, whoever has come
	}
	d.desired, d.newer = nil, false
}

// unshare has the device show its one mailbox's count again. It returns the targets
// whose counts have to be set anew. The caller holds d.mu.
func (d *device) unshare() (targets []*target) {
	d.endSharedPush(d.app.relay)
	d.shared, d.shownAt, d.shownBy = nil, 0, 0
	return append([]*target(nil), d.targets...)
}

// setShared is set for a shared device. It brings nothing to the registry: the next
// exchange of the device does (gather), unless an accepted sum holds the count already,
// because what came for another mailbox took it along. The caller holds d.mu and the shard's lock.
func (d *device) setShared(t *target, now int64) setResult {
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
