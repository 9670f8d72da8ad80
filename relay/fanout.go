package relay

import (
	"slices"

	"badgerelay/apns"
	"badgerelay/relay/lookup"
)

// fanOut claims every device of the mailbox for its newest event and opens the
// coalescing window if anything went out. The caller holds the shard's lock.
func (r *Relay) fanOut(m *mailbox, now int64, fx *effects) {
	m.held = false
	m.owed = 0
	going := false
	for _, l := range m.links {
		result, displaced := l.device.set(l, now, r)
		if displaced.link != nil {
			fx.results = append(fx.results, displaced)
		}
		l.owed, l.disabled = result == claimGoing || result == claimQueued, false
		switch result {
		case claimShown:
			m.shown = true
			m.delivered = m.delivered || l.delivered == m.generation
			continue
		case claimQuarantined:
			m.refuse(l, l.refusedFor(), false)
			continue
		}
		m.owed++
		going = true
		if result == claimQueued {
			fx.wake(l.device.app)
		}
	}
	if going && r.window > 0 && !m.windowOpen {
		m.windowOpen = true
		if r.windows.open(m, now+r.window) {
			r.timersChanged.fill()
		}
	}
	r.settleIfDone(m, fx)
}

// hold keeps a pending event until the window ends. Where a push has not left
// yet, it takes the newest count along. The caller holds the shard's lock.
func (m *mailbox) hold() {
	m.held = true
	for _, l := range m.links {
		if l.owed {
			l.device.offer(l)
		}
	}
}

// endWindow lets the event that was held go out.
func (r *Relay) endWindow(m *mailbox, now int64, fx *effects) {
	m.shard.mu.Lock()
	defer m.shard.mu.Unlock()
	m.windowOpen = false
	if m.held && m.subs == lookup.Known {
		r.fanOut(m, now, fx)
	}
}

// linkEnd says how a device is done with a claim.
type linkEnd uint8

const (
	endDelivered linkEnd = iota // APNs accepted the count
	endDisplaced                // another mailbox claimed the device, or another relay has a newer count
	endShown                    // the device showed it already
	endDropped                  // APNs refused the push, and no other like it will fare better
	endDisabled                 // the device shows another organization's counts alone
)

// linkResult is what became of a mailbox's claim on one device.
type linkResult struct {
	link       *link
	generation uint32
	end        linkEnd
	reason     apns.Reason // with endDropped
}

// finish brings a result home to the mailbox.
func (r *Relay) finish(res linkResult, fx *effects) {
	l := res.link
	m := l.mailbox
	m.shard.mu.Lock()
	defer m.shard.mu.Unlock()
	newest := res.generation == m.generation && l.owed
	switch res.end {
	case endDelivered:
		l.delivered = res.generation
		if newest {
			m.delivered = true
		}
	case endShown:
		m.shown = m.shown || newest
	case endDisplaced:
		m.displaced = m.displaced || newest
	case endDropped:
		if newest {
			m.refuse(l, res.reason, false)
		}
	case endDisabled:
		l.disabled = newest
	}
	if newest {
		l.owed = false
		m.owed--
	}
	r.settleIfDone(m, fx)
}

// unlink takes a link off the mailbox; false if it is off already.
func (m *mailbox) unlink(l *link) bool {
	for i, other := range m.links {
		if other == l {
			m.links = append(m.links[:i], m.links[i+1:]...)
			return true
		}
	}
	return false
}

// effects gathers what has to be done once no lock is held. The zero value is
// ready. One goroutine uses it at a time.
type effects struct {
	answers  []watchedAnswer // watchers to tell, before an event settles
	streams  []*Stream       // readers to wake
	apps     []*appState     // pools to wake
	lookups  []*mailbox      // subscriptions to read
	results  []linkResult    // claims to finish in other shards
	refusals []linkRefusal   // devices that APNs refused, to be judged
	accepted []Subscriber    // devices that APNs takes again, to be noted
	trials   []*link         // refused devices that are to be tried again
	recounts []MailboxKey    // mailboxes whose counts are wanted anew
	released []*device       // devices that may be forgotten
	drained  bool            // an event settled
}

// settled tells a stream how an event ended. The caller holds the shard's lock.
func (fx *effects) settled(s *Stream, outcome Outcome, sequence uint64, detail *EventOutcome) {
	if s.settle(settledEvent{sequence, outcome, detail}) {
		fx.streams = append(fx.streams, s)
	}
}

// wake notes that an app has pushes to send.
func (fx *effects) wake(a *appState) {
	if !slices.Contains(fx.apps, a) {
		fx.apps = append(fx.apps, a)
	}
}

// apply does what was gathered and leaves fx empty.
func (r *Relay) apply(fx *effects) {
	for _, a := range fx.answers {
		a.watch.Answered(a.answer)
	}
	for _, l := range fx.trials {
		r.try(l, fx)
	}
	for i := 0; i < len(fx.results); i++ { // finishing one may add another
		r.finish(fx.results[i], fx)
	}
	for _, s := range fx.streams {
		s.wakeReader()
	}
	for _, app := range fx.apps {
		app.queue.Wake()
	}
	for _, d := range fx.released {
		r.devices.drop(d, r)
	}
	if len(fx.lookups) > 0 {
		r.lookups.Add(fx.lookups)
	}
	if len(fx.recounts) > 0 {
		r.recount(fx.recounts)
	}
	if len(fx.refusals)+len(fx.accepted) > 0 {
		r.refusals.add(fx.refusals, fx.accepted)
	}
	if fx.drained && r.draining.Load() {
		notify(r.settledOne)
	}
	fx.reset()
}

// reset empties fx, keeps its memory and lets go of what it pointed to.
func (fx *effects) reset() {
	clear(fx.answers)
	clear(fx.streams)
	clear(fx.lookups)
	clear(fx.results)
	clear(fx.refusals)
	clear(fx.accepted)
	clear(fx.trials)
	clear(fx.recounts)
	clear(fx.released)
	fx.answers = fx.answers[:0]
	fx.streams, fx.apps, fx.lookups = fx.streams[:0], fx.apps[:0], fx.lookups[:0]
	fx.results, fx.released = fx.results[:0], fx.released[:0]
	fx.trials, fx.recounts = fx.trials[:0], fx.recounts[:0]
	fx.refusals, fx.accepted = fx.refusals[:0], fx.accepted[:0]
	fx.drained = false
}
