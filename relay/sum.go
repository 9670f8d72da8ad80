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
	lanes   []*lane  // of the organizations that wait for the sum to be pushed
	targets []target // the device's links whose mailboxes' counts are stored

	pusher   bool           // the registry says that this relay pushes
	lease    uint64         // in which lease it said so
	ready    bool           // the sum lacks nothing that it has to wait for
	sequence uint64         // of the device's wanted count
	sent     uint64         // of the push in flight
	accepted uint64         // the last one that APNs accepted, by whatever relay
	refused  *SharedRefusal // the last one that APNs refused; nil: none

	windowEnds int64            // no push before; 0: at any time
	dirty      bool             // there is something to exchange
	queuedFor  []OrganizationID // in whose turns of the queue to be exchanged it is
	exchanging bool             // it is being exchanged
	inFlight   bool             // the push in flight is of a sum

	quarantined []MailboxKey // parts whose refusals are forgotten when APNs accepts the device

	claimed  linkResult      // what the push in flight was claimed for before the device was shared; zero: nothing
	recalled []ReceivedCount // what this relay remembers of mailboxes that nobody has reported
}

// target is a link's count that the registry has.
type target struct {
	link       *link
	generation uint32 // of the event
	count      uint32
	sequence   uint64 // of the sums that hold it: from this one on
	acceptedAt int64
	open       bool // the event waits for APNs' answer
}

// answered returns the last sequence that APNs accepted or refused.
func (s *sharedState) answered() uint64 {
	if s.refused == nil {
		return s.accepted
	}
	return max(s.accepted, s.refused.Sequence)
}

// wanted reports whether this relay has a sum to push.
func (s *sharedState) wanted() bool {
	return s != nil && s.pusher && s.ready && s.sequence > s.answered()
}

// exchangePending reports whether something is on its way to the registry or back.
func (s *sharedState) exchangePending() bool { return s != nil && (s.dirty || s.exchanging) }

// forget drops what is known of a link.
func (s *sharedState) forget(l *link) {
	for i := range s.targets {
		if s.targets[i].link == l {
			s.targets = append(s.targets[:i], s.targets[i+1:]...)
			return
		}
	}
}

// target returns what the registry has of a link; nil: nothing.
func (s *sharedState) target(l *link) *target {
	for i := range s.targets {
		if s.targets[i].link == l {
			return &s.targets[i]
		}
	}
	return nil
}

// share has the device show the sum of its mailboxes from now on. What a link has
// claimed goes into it. A device that does already is exchanged: an answer that is on
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
	if d.stage == stageInFlight && d.claim != nil && d.want == d.sent {
		d.shared.claimed = linkResult{link: d.claim, generation: d.generation, end: endDelivered}
	}
	d.claim, d.newer = nil, false
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
	for i := range d.shared.targets {
		if t := &d.shared.targets[i]; t.open {
			waiting = true
			d.touch(t.link.mailbox.key.Organization)
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

// storeCount has a link's newest count stored. The sum that holds it is wanted when
// the registry has it, which may be so already: what came for another mailbox took
// it along. The caller holds d.mu and the shard's lock.
func (d *device) storeCount(l *link, now int64) claimed {
	t := d.shared.target(l)
	if t == nil || t.generation != l.mailbox.generation || d.shared.refused != nil && t.sequence <= d.shared.refused.Sequence && t.sequence > d.shared.accepted {
		d.shared.forget(l)
		d.touch(l.mailbox.key.Organization)
		return claimGoing
	}
	if t.sequence > d.shared.accepted {
		t.open = true
		d.touch(l.mailbox.key.Organization) // another relay may be the one that pushes
		return claimGoing
	}
	if l.endAccepted(t.count, now) == endDelivered {
		l.delivered = t.generation
	}
	return claimShown
}

// startShared takes the sum for a push; false: the relay may not push at present.
// The caller holds d.mu.
func (d *device) startShared(req *apns.Request, r *Relay) bool {
	deadline, ok := r.sums.mayPush(d.shared.lease)
	if !ok {
		d.shared.ready = false
		d.touch(d.org())
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
	if len(d.links) == 0 {
		return 0
	}
	return d.links[0].mailbox.key.Organization
}

// acceptedShared settles what APNs accepted. The caller holds d.mu.
func (d *device) acceptedShared(res *apns.Result, r *Relay, fx *effects) {
	s := d.shared
	s.accepted = max(s.accepted, s.sent)
	for _, key := range s.quarantined {
		fx.accepted = append(fx.accepted, Subscriber{key, d.app.name, d.token})
	}
	s.quarantined = nil
	if s.claimed.link != nil {
		s.claimed.end = s.claimed.link.endAccepted(d.sent, r.now())
		fx.results = append(fx.results, s.claimed)
	}
	if !res.WrittenAt.IsZero() {
		for _, t := range s.targets {
			if t.open && t.sequence <= s.sent {
				r.pushLatency.observe(max(0, int64(res.WrittenAt.Sub(r.start))-t.acceptedAt))
			}
		}
	}
	d.touchForWaiting()
	d.settleAccepted(r.now(), fx)
}

// settleAccepted ends the claims of counts that APNs accepted. The caller holds d.mu.
func (d *device) settleAccepted(now int64, fx *effects) {
	for i := range d.shared.targets {
		t := &d.shared.targets[i]
		if t.open && t.sequence <= d.shared.accepted {
			t.open = false
			fx.results = append(fx.results, linkResult{link: t.link, generation: t.generation, end: t.link.endAccepted(t.count, now)})
		}
	}
}

// refusedShared notes that APNs refused a sum for good. The caller holds d.mu.
func (d *device) refusedShared(f *SharedRefusal, fx *effects) {
	if had := d.shared.refused; had == nil || had.Sequence < f.Sequence {
		d.shared.refused = f
		d.touchForWaiting()
		d.settleRefused(fx)
	}
}

// settleRefused acts on the last refusal. A dead device ends the subscriptions of
// those organizations alone whose events wait for it: the others learn of it from
// their own next one. The caller holds d.mu.
func (d *device) settleRefused(fx *effects) {
	f := d.shared.refused
	concerned := map[OrganizationID]bool{}
	for i := range d.shared.targets {
		t := &d.shared.targets[i]
		if !t.open || t.sequence > f.Sequence || t.sequence <= d.shared.accepted {
			continue
		}
		if f.Dropped {
			t.open = false
			fx.results = append(fx.results, linkResult{link: t.link, generation: t.generation, end: endDropped, reason: f.Reason})
			continue
		}
		concerned[t.link.mailbox.key.Organization] = true
	}
	for _, l := range d.links {
		if !concerned[l.mailbox.key.Organization] || l.refused {
			continue
		}
		d.shared.forget(l) // its count is stored anew if the subscription goes on
		d.haveJudged(l, f, fx)
	}
}

// tracedShared tells who watches the mailboxes whose counts were pushed.
func (d *device) tracedShared(res *apns.Result, r *Relay, fx *effects) {
	for _, t := range d.shared.targets {
		if !t.open || t.sequence > d.shared.sent {
			continue
		}
		traceID := r.watches.tell(t.link.mailbox.key, d.app.name, res, fx)
		if traceID != "" && res.Err == nil && !res.WrittenAt.IsZero() {
			r.exemplars.set(traceID, max(0, int64(res.WrittenAt.Sub(r.start))-t.acceptedAt))
		}
	}
}

// storing is a link's count on its way to the registry.
type storing struct {
	link       *link
	generation uint32
	acceptedAt int64
	pending    bool
	count      ReceivedCount
}

// gather returns what the registry is to know of the device: the counts of its
// mailboxes that it does not have, and APNs' answers.
func (d *device) gather(r *Relay) (u SharedUpdate, counts []storing) {
	d.mu.Lock()
	s := d.shared
	u.DeviceKey = DeviceKey{d.app.name, d.token}
	if s == nil || d.gone {
		d.mu.Unlock()
		return u, nil
	}
	links := append([]*link(nil), d.links...)
	stored := make(map[*link]target, len(links))
	for _, t := range s.targets {
		stored[t.link] = t
	}
	u.Accepted, u.Refused, u.OneOrganization = s.accepted, s.refused, d.app.oneOrganization.Load()
	u.Counts, s.recalled = s.recalled, nil
	now := r.now()
	if st := &d.app.stall; st.stalled && !st.isTrial(u.DeviceKey, now) && d.mayYield(now) {
		u.Yield, s.pusher = true, false
	}
	d.mu.Unlock()
	for _, l := range links {
		c, ok := l.received(r)
		t, has := stored[l]
		// A count that was stored while its window held it may wait for the device by
		// now, unnoticed by the exchange that was under way.
		if ok && (!has || t.generation != c.generation || c.pending && !t.open) {
			counts = append(counts, c)
			u.Counts = append(u.Counts, c.count)
		}
	}
	return u, counts
}

// received returns the newest count of the link's mailbox; false: none is known,
// or the device has left it.
func (l *link) received(r *Relay) (c storing, ok bool) {
	m := l.mailbox
	m.shard.mu.Lock()
	defer m.shard.mu.Unlock()
	if !m.counted || !m.has(l) || l.isRefused() {
		return c, false
	}
	return storing{l, m.generation, m.acceptedAt, m.pending && l.owed, ReceivedCount{m.key, m.unread, r.sums.sharedTime(m.acceptedAt)}}, true
}

// applyShared takes over what the registry says of the device; counts are those
// that it was told. It reports whether events wait for what the registry says next:
// that another relay has pushed, or that their organization is enabled again.
func (d *device) applyShared(st *SharedDevice, counts []storing, now time.Time, r *Relay, fx *effects) (elsewhere bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.shared
	if s == nil || d.gone {
		return false
	}
	s.exchanging = false
	s.accepted = max(s.accepted, st.Accepted)
	if st.Refused != nil && (s.refused == nil || s.refused.Sequence < st.Refused.Sequence) {
		s.refused = st.Refused
	}
	waits := false
	for _, c := range counts {
		waits = d.noteStored(c, st, fx) || waits
	}
	waits = s.followParts(st) || waits
	s.pusher, s.lease = st.Pusher == r.instance, r.sums.leaseNumber()
	s.ready = st.Ready(now) && len(s.recalled) == 0 // what this relay remembers comes first
	s.quarantined = nil
	for i := range st.Parts {
		if st.Parts[i].Quarantined {
			s.quarantined = append(s.quarantined, st.Parts[i].Key)
		}
	}
	if s.pusher && st.Sequence >= s.sequence {
		s.sequence, d.want = st.Sequence, st.Sum()
		s.lanes = s.lanes[:0]
		for _, org := range st.turns() {
			s.lanes = append(s.lanes, d.app.lane(org))
		}
	}
	d.settleAccepted(r.now(), fx)
	if s.refused != nil {
		d.settleRefused(fx)
	}
	d.goOnShared(r, fx)
	return waits || !s.pusher && slices.ContainsFunc(s.targets, func(t target) bool { return t.open })
}

// noteStored notes what became of a count that was brought to the registry. It reports
// whether the event waits for its organization to be enabled, or for the end of its
// stream, which this relay has not heard of yet if it was disabled.
func (d *device) noteStored(c storing, st *SharedDevice, fx *effects) (waits bool) {
	p := st.part(c.count.Key)
	s := d.shared
	s.forget(c.link)
	if p == nil {
		return false // the subscription has ended: the mailbox is about to hear of it
	}
	if p.Disabled {
		if c.pending && p.Others {
			fx.results = append(fx.results, linkResult{link: c.link, generation: c.generation, end: endDisabled})
		}
		return c.pending && !p.Others
	}
	if p.Count != c.count.Count || p.ReceivedAt.After(c.count.ReceivedAt) {
		if c.pending {
			fx.results = append(fx.results, linkResult{link: c.link, generation: c.generation, end: endDisplaced})
		}
		return false // another relay has a newer one
	}
	s.targets = append(s.targets, target{
		link: c.link, generation: c.generation, count: c.count.Count, sequence: p.Sequence, acceptedAt: c.acceptedAt, open: c.pending,
	})
	return false
}

// followParts has events wait for the sum that holds their counts now. Their parts may
// have ended or been disabled since they were stored, and be there again: a sum that was
// accepted meanwhile was one without them. It reports whether one is disabled.
func (s *sharedState) followParts(st *SharedDevice) (waits bool) {
	s.targets = slices.DeleteFunc(s.targets, func(t target) bool {
		p := st.part(t.link.mailbox.key)
		off := p == nil || p.Disabled
		waits = waits || off && p != nil && t.open
		return off // noteStored says what becomes of the event
	})
	for i := range s.targets {
		t := &s.targets[i]
		if p := st.part(t.link.mailbox.key); p != nil && p.Count == t.count {
			t.sequence = max(t.sequence, p.Sequence)
		}
	}
	return waits
}

// goOnShared puts the device where it belongs after an exchange.
func (d *device) goOnShared(r *Relay, fx *effects) {
	now := r.now()
	switch {
	case d.stage == stageWaiting && d.mayGo(now) && d.wanted():
		r.waits.Remove(d)
		d.enqueue(false)
		fx.wake(d.app)
	case d.stage == stageWaiting && d.wanted():
		r.waits.Set(d, d.waitUntil())
	case d.stage == stageQueued && d.wanted():
		d.enqueue(false) // an organization may have come that does not wait for the others' turns
		fx.wake(d.app)
	case d.stage == stageIdle:
		d.goOn(false, now, r, fx)
	}
}

// unshare has the device show its one mailbox's count again. It returns the links
// whose claims have to be made anew. The caller holds d.mu.
func (d *device) unshare() (links []*link) {
	d.endSharedPush(apns.VerdictAccepted, d.app.relay)
	d.shared, d.shownAt, d.shownBy = nil, 0, 0
	return append([]*link(nil), d.links...)
}
