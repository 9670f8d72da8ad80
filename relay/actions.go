package relay

import "slices"

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
