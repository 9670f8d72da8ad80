package relay

import "slices"

// sharedState is what this relay has of a shared device: the sum that it is to
// push, if it is the device's pusher, and which events wait for it. A nil one is
// that of a device on one mailbox.
//
// The device's lock guards it.
type sharedState struct {
	// The sum, as the last exchange said.
	pusher           bool           // the registry says that this relay pushes
	lease            uint64         // in which lease it said so
	ready            bool           // the sum lacks nothing that is about to come, and its lease has not run out
	sequence         uint64         // of the device's wanted count, whoever pushes it
	acceptedSequence uint64         // the last one that APNs accepted, by whatever relay
	refusal          *SharedRefusal // the last one that APNs refused; nil: none
	quarantined      []MailboxKey   // parts whose refusals are forgotten when APNs accepts the device

	// Its push by this relay.
	turns        []*orgStats  // of the organizations that wait for it
	changed      bool         // they have changed the sum; false: none has, and turns are of the one that did last
	windowEnds   int64        // no push before; 0: at any time
	inFlight     bool         // the push in flight is of a sum
	sentSequence uint64       // of that push
	sentBefore   targetResult // whose count is in flight since before the device was shared; zero: nothing

	// The events that wait for it.
	stored []storedCount        // of the device's targets: their mailboxes' counts that the registry has
	spared map[MailboxKey]int64 // registrations, in Unix milliseconds, that a refusal from before them was spared for

	// Its exchange.
	dirty      bool             // there is something to exchange
	queuedFor  []OrganizationID // in whose turns of the queue to be exchanged it is
	exchanging bool             // it is being exchanged
	remembered []ReceivedCount  // what this relay remembers of mailboxes that nobody has reported
}

// storedCount is a target's count that the registry has, or that an exchange brings it.
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

// setInSum does for a shared device what set does for another. It brings nothing to the registry: the next
// exchange of the device does (gather), unless an accepted sum holds the count already,
// because what came for another mailbox took it along. The caller holds d.mu and the shard's lock.
func (d *device) setInSum(t *target, now int64) setResult {
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
