package relay

import (
	"badgerelay/apns"
	"badgerelay/relay/lookup"
)

// fanOut makes the newest count the desired one of every device of the mailbox, and opens the
// coalescing window if anything went out. The caller holds the shard's lock.
func (r *Relay) fanOut(m *mailbox, now int64, acts *actions) {
	m.held = false
	for _, t := range m.targets {
		r.setDesired(t, now, acts)
	}
	if m.outstanding > 0 && r.window > 0 && !m.windowOpen {
		m.windowOpen = true
		if r.windows.open(m, now+r.window) {
			r.timersChanged.fill()
		}
	}
	r.settleIfDone(m, acts)
}

// setDesired makes the mailbox's newest count the desired one of a target's device. If its
// event is pending, it is outstanding there, or what became of it is noted: the caller
// settles it if it is done. The caller holds the shard's lock.
func (r *Relay) setDesired(t *target, now int64, acts *actions) {
	m := t.mailbox
	result, preempted := t.device.set(t, now, r)
	if preempted.target != nil {
		acts.results = append(acts.results, preempted)
	}
	if result == countQueued {
		acts.wake(t.device.app)
	}
	if !m.pending {
		return
	}
	t.otherOrganization = false
	t.setOutstanding(result == countGoing || result == countQueued)
	switch result {
	case countShown:
		m.shown = true
		m.delivered = m.delivered || t.delivered == m.event
	case countQuarantined:
		m.refuse(t, RefusedSubscription{Reason: t.refusedFor()})
	}
}

// setAnew is setDesired for a target whose device has lost what was desired of it.
func (r *Relay) setAnew(t *target, acts *actions) {
	m := t.mailbox
	m.shard.mu.Lock()
	defer m.shard.mu.Unlock()
	if m.pending && t.outstanding && m.has(t) {
		r.setDesired(t, r.now(), acts)
		r.settleIfDone(m, acts)
	}
}

// hold keeps a pending event until the window ends. Where a push has not left
// yet, it takes the newest count along. The caller holds the shard's lock.
func (m *mailbox) hold() {
	m.held = true
	for _, t := range m.targets {
		if t.outstanding {
			t.device.update(t)
		}
	}
}

// endWindow lets the event that was held go out.
func (r *Relay) endWindow(m *mailbox, now int64, acts *actions) {
	m.shard.mu.Lock()
	defer m.shard.mu.Unlock()
	m.windowOpen = false
	if m.held && m.subs == lookup.Known {
		r.fanOut(m, now, acts)
	}
}

// targetEnd says how a device is done with a desired count.
type targetEnd uint8

const (
	endDelivered         targetEnd = iota // APNs accepted the count
	endPreempted                          // another mailbox's count is desired, or another relay has a newer count
	endShown                              // the device showed it already
	endDropped                            // APNs refused the push, and no other like it will fare better
	endOtherOrganization                  // the device shows another organization's counts alone
	endDisabled                           // its organization is disabled: it goes on when that is enabled, unless nobody waits for it
)

// targetResult is what became of a mailbox's count on one device.
type targetResult struct {
	target *target
	event  uint32
	end    targetEnd
	reason apns.Reason // with endDropped
}

// finish brings a result home to the mailbox.
func (r *Relay) finish(res targetResult, acts *actions) {
	t := res.target
	m := t.mailbox
	m.shard.mu.Lock()
	defer m.shard.mu.Unlock()
	newest := res.event == m.event && t.outstanding
	if res.end == endDisabled {
		if newest && m.pending && m.stream == nil {
			r.settleAs(m, OutcomeAbandoned, acts)
		}
		return
	}
	switch res.end {
	case endDelivered:
		t.delivered = res.event
		if newest {
			m.delivered = true
		}
	case endShown:
		m.shown = m.shown || newest
	case endPreempted:
		m.preempted = m.preempted || newest
	case endDropped:
		if newest {
			m.refuse(t, RefusedSubscription{Reason: res.reason, Dropped: true})
		}
	case endOtherOrganization:
		t.otherOrganization = t.otherOrganization || newest
	}
	if newest {
		t.setOutstanding(false)
	}
	r.settleIfDone(m, acts)
}
