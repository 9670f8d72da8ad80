package relay

import (
	"slices"

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

// actions gathers what has to be done once no lock is held. The zero value is
// ready. One goroutine uses it at a time.
type actions struct {
	answers    []watchedAnswer // watchers to tell, before an event settles
	streams    []*Stream       // readers to wake
	apps       []*appState     // pools to wake
	lookups    []*mailbox      // subscriptions to read
	results    []targetResult  // to finish in other shards
	refusals   []targetRefusal // devices that APNs refused, to be judged
	lifted     []Subscriber    // devices that APNs takes again, to be noted
	probes     []*target       // refused devices that are to be tried again
	recounts   []MailboxKey    // mailboxes whose counts are wanted anew
	released   []*device       // devices that may be forgotten
	anySettled bool            // an event settled, so that a drain may be over
}

// settled tells a stream how an event ended. The caller holds the shard's lock.
func (acts *actions) settled(s *Stream, outcome Outcome, sequence uint64, detail *EventOutcome) {
	if s.settle(settledEvent{sequence, outcome, detail}) {
		acts.streams = append(acts.streams, s)
	}
}

// wake notes that an app has pushes to send.
func (acts *actions) wake(a *appState) {
	if !slices.Contains(acts.apps, a) {
		acts.apps = append(acts.apps, a)
	}
}

// apply does what was gathered and leaves acts empty.
func (r *Relay) apply(acts *actions) {
	for _, a := range acts.answers {
		a.watch.Answered(a.answer)
	}
	for _, t := range acts.probes {
		r.try(t, acts)
	}
	for i := 0; i < len(acts.results); i++ { // finishing one may add another
		r.finish(acts.results[i], acts)
	}
	for _, s := range acts.streams {
		s.wakeReader()
	}
	for _, app := range acts.apps {
		app.queue.Wake()
	}
	for _, d := range acts.released {
		r.devices.drop(d, r)
	}
	if len(acts.lookups) > 0 {
		r.lookups.Add(acts.lookups)
	}
	if len(acts.recounts) > 0 {
		r.recount(acts.recounts)
	}
	if len(acts.refusals)+len(acts.lifted) > 0 {
		r.refusals.add(acts.refusals, acts.lifted)
	}
	if acts.anySettled && r.draining.Load() {
		r.settledOne.fill()
	}
	acts.reset()
}

// reset empties acts, keeps its memory and lets go of what it pointed to.
func (acts *actions) reset() {
	clear(acts.answers)
	clear(acts.streams)
	clear(acts.lookups)
	clear(acts.results)
	clear(acts.refusals)
	clear(acts.lifted)
	clear(acts.probes)
	clear(acts.recounts)
	clear(acts.released)
	acts.answers = acts.answers[:0]
	acts.streams, acts.apps, acts.lookups = acts.streams[:0], acts.apps[:0], acts.lookups[:0]
	acts.results, acts.released = acts.results[:0], acts.released[:0]
	acts.probes, acts.recounts = acts.probes[:0], acts.recounts[:0]
	acts.refusals, acts.lifted = acts.refusals[:0], acts.lifted[:0]
	acts.anySettled = false
}
