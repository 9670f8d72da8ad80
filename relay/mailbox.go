package relay

import (
	"slices"
	"unicode/utf8"

	"badgerelay/relay/lookup"
)

// mailbox is the newest event of one mailbox and where it has to go.
//
// A million of them don't fit into a core's caches, so an event waits for each
// piece of memory that it touches. Hence a mailbox on one device, as nearly all
// are, holds it by value. Its size is tested.
type mailbox struct {
	key     MailboxKey
	shard   *shard
	targets []*target
	subs    lookup.State // what is known of subscriptions; until then targets are those of before

	// The newest event, and how far it is.
	counted     bool // unread is the newest count that is known
	pending     bool // the newest event has not settled
	held        bool // it waits for the end of the window
	windowOpen  bool
	delivered   bool  // APNs accepted it for some device
	preempted   bool  // another count took its place on a device: another mailbox's, or a newer one of another relay
	shown       bool  // some device showed the count already
	outstanding int32 // targets on which the event is not done
	unread      uint32
	event       uint32 // number of the newest event, so that a late answer is not taken for the newest event's
	receivedAt  int64  // when it came, on the relay's clock
	sequence    uint64
	order       order   // of the events of different agents
	stream      *Stream // who is told; nil: nobody waits

	// The list of the stream's pending mailboxes; guarded by Stream.mu too.
	nextPending, prevPending *mailbox

	refused *refusedDevices // with the newest event; nil: none

	// The first target, and the slice that holds it where it is the only one.
	first     target
	firstOnly [1]*target

	own device // of first, unless another mailbox's serves it
}

// target ties a mailbox to one of its devices. The shard's lock guards it, save
// what is the device's.
type target struct {
	mailbox           *mailbox
	device            *device
	stats             *orgStats // the organization's, of the device's app
	outstanding       bool      // the mailbox's newest event is not done here
	otherOrganization bool      // the device shows another organization's counts alone: the newest event ended by that
	delivered         uint32    // number of the event that APNs accepted here last

	// Guarded by the device's lock.
	refused       bool              // APNs refused the device; what follows is being decided
	renewed       bool              // registered since the last push was taken
	repeats       bool              // the newest event says what APNs had accepted of the mailbox before it
	acceptedCount uint32            // the mailbox's count that APNs accepted last, alone or in a sum
	acceptedAt    int64             // when this relay learned of it, which may be later; 0: not known, or another count was desired since
	registeredAt  int64             // last registration, in Unix milliseconds; 0: not known
	quarantine    *targetQuarantine // what is remembered of refusals; nil: nothing
}

// targetQuarantine is a Quarantine and when it lets a push pass, on the relay's
// clock. It never changes.
type targetQuarantine struct {
	*Quarantine
	probeAt int64
}

// newTarget makes a target of the mailbox that has no device yet. first is used
// once: a late result of a target that was must not reach another.
func (m *mailbox) newTarget(stats *orgStats) *target {
	t := &m.first
	if t.mailbox != nil { // it is in use, or was
		t = new(target)
	}
	t.mailbox, t.stats = m, stats
	return t
}

// setOutstanding notes whether the mailbox's newest event is still to be done on the
// target. The caller holds the shard's lock.
func (t *target) setOutstanding(outstanding bool) {
	if t.outstanding == outstanding {
		return
	}
	t.outstanding = outstanding
	if outstanding {
		t.mailbox.outstanding++
	} else {
		t.mailbox.outstanding--
	}
}

// newDevice makes the device of a new target: the mailbox's own for the first,
// unless it has served already, as when its compaction is undone. A late answer
// for a device that was must not reach another.
func (t *target) newDevice(key deviceKey) *device {
	d := &t.mailbox.own
	if t != &t.mailbox.first || d.app != nil {
		d = new(device)
	}
	d.app, d.token = key.app, key.token
	d.targets = d.first[:0]
	return d
}

// has reports whether the target is one of the mailbox's. The caller holds the
// shard's lock.
func (m *mailbox) has(t *target) bool { return slices.Contains(m.targets, t) }

// room makes the mailbox's targets an empty slice with room for n.
func (m *mailbox) room(n int) {
	if n == 1 && m.targets == nil {
		m.targets = m.firstOnly[:0]
		return
	}
	m.targets = make([]*target, 0, n)
}

// check returns the field and the rule that an event breaks, or nothing.
func (e *Event) check() (field, rule string) {
	switch {
	case e.Mailbox == "":
		return "mailbox", "mailbox is empty"
	case len(e.Mailbox) > MaxMailboxSize:
		return "mailbox", "mailbox is longer than 256 bytes"
	case !utf8.ValidString(e.Mailbox):
		return "mailbox", "mailbox is not UTF-8"
	case e.Unread > MaxUnread:
		return "unread_count", "unread_count is above 2147483647"
	}
	return "", ""
}

// accept makes an event the newest of its mailbox, or settles it at once.
func (r *Relay) accept(s *Stream, sequence uint64, e *Event, now instant, acts *actions) {
	sh, hash := r.shardOf(s.org, e.Mailbox)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.counts.accepted++
	if field, rule := e.check(); field != "" {
		r.reject(sh, s, sequence, field, rule, acts)
		return
	}
	key := MailboxKey{s.org, e.Mailbox}
	m := sh.active.find(hash, key)
	if m == nil {
		if m = r.findMailbox(sh, hash, key); m == nil {
			// Our lack of room is not the event's fault: the agent keeps it.
			acts.settled(s, sh.record(OutcomeAbandoned), sequence, nil)
			return
		}
	}
	by := orderOf(s.agent, e, now)
	if m.order.stale(&by, m.receivedAt, m.unread == e.Unread) {
		acts.settled(s, sh.record(OutcomeStale), sequence, nil)
		return
	}
	r.supersede(m, acts)
	m.take(s, sequence, e, now.relay)
	m.order.take(&by)
	s.attach(m)
	r.advance(m, now.relay, acts)
}

// reject settles an event that breaks a rule.
func (r *Relay) reject(sh *shard, s *Stream, sequence uint64, field, rule string, acts *actions) {
	acts.settled(s, sh.record(OutcomeRejected), sequence, &EventOutcome{
		Sequence: sequence, Outcome: OutcomeRejected, Field: field, Detail: rule,
	})
}

// supersede ends the event that a newer one replaces.
func (r *Relay) supersede(m *mailbox, acts *actions) {
	if m.pending {
		r.settleAs(m, OutcomeSuperseded, acts)
	}
}

// take makes e the mailbox's newest event.
func (m *mailbox) take(s *Stream, sequence uint64, e *Event, now int64) {
	m.event++
	m.unread, m.counted = e.Unread, true
	m.stream, m.sequence = s, sequence
	m.receivedAt = now
	m.pending = true
	m.delivered, m.preempted, m.shown, m.refused = false, false, false, nil
}

// advance moves a pending event on: to the look-up of its subscriptions, to the
// window, or out to the devices. The caller holds the shard's lock.
func (r *Relay) advance(m *mailbox, now int64, acts *actions) {
	if m.subs.BeginLoad() {
		acts.lookups = append(acts.lookups, m)
	}
	switch {
	case m.subs != lookup.Known: // the look-up's end goes on from here
	case len(m.targets) == 0:
		r.settleAs(m, OutcomeNoSubscription, acts)
	case m.windowOpen && !r.draining.Load():
		m.hold()
	default:
		r.fanOut(m, now, acts)
	}
}

// idle reports whether nothing is going on with the mailbox.
func (m *mailbox) idle() bool {
	return !m.pending && !m.windowOpen && m.subs.Idle()
}

// forget drops a mailbox that is idle.
func (r *Relay) forget(m *mailbox) {
	for _, t := range m.targets {
		r.devices.release(t, r)
	}
	m.targets = nil // a refusal that is on its way finds nothing to release
	_, hash := r.shardOf(m.key.Organization, m.key.Mailbox)
	m.shard.active.remove(hash, m)
}

// abandon ends a pending event whose stream closed.
func (r *Relay) abandon(s *Stream, m *mailbox) {
	var acts actions
	m.shard.mu.Lock()
	if m.pending && m.stream == s {
		r.settleAs(m, OutcomeAbandoned, &acts)
	}
	m.shard.mu.Unlock()
	r.apply(&acts)
}

// orphan lets a pending event go on with nobody waiting for it.
func (r *Relay) orphan(s *Stream, m *mailbox) {
	m.shard.mu.Lock()
	defer m.shard.mu.Unlock()
	if m.pending && m.stream == s {
		s.detach(m)
		m.stream = nil
	}
}

// settleIfDone ends the newest event if no device is left to wait for. The
// caller holds the shard's lock.
func (r *Relay) settleIfDone(m *mailbox, acts *actions) {
	if !m.pending || m.held || m.outstanding > 0 || m.subs != lookup.Known {
		return
	}
	switch {
	case m.delivered:
		r.settleAs(m, OutcomeDelivered, acts)
	case m.preempted:
		r.settleAs(m, OutcomeSuperseded, acts)
	case m.shown:
		r.settleAs(m, OutcomeUnchanged, acts)
	case m.refused != nil:
		r.settleAs(m, OutcomeUndeliverable, acts)
	case len(m.targets) == 0 || slices.ContainsFunc(m.targets, func(t *target) bool { return t.otherOrganization }):
		r.settleAs(m, OutcomeNoSubscription, acts)
	default: // not reached: whatever ends on a target is noted in one of the above
		r.settleAs(m, OutcomeUnchanged, acts)
	}
}

// settleAs ends the newest event. It is the one place where a pending event
// ends; the caller holds the shard's lock.
func (r *Relay) settleAs(m *mailbox, outcome Outcome, acts *actions) {
	sh := m.shard
	m.pending, m.held = false, false
	sh.record(outcome)
	if outcome == OutcomeDelivered {
		sh.counts.settle.observe(r.now() - m.receivedAt)
	}
	if outcome == OutcomeAbandoned {
		m.cancel()
	}
	acts.anySettled = true
	s := m.stream
	if s == nil {
		return
	}
	m.stream = nil
	s.detach(m)
	var detail *EventOutcome
	if outcome == OutcomeUndeliverable {
		detail = &EventOutcome{Sequence: m.sequence, Outcome: outcome, Refused: m.refused.list}
		what, first := "every device", m.refused.list[0]
		if first.Dropped {
			what = "the push"
		}
		detail.Detail = "APNs refuses " + what + ": " + string(first.Reason)
	}
	acts.settled(s, outcome, m.sequence, detail)
}

// cancel cancels the mailbox's count on each device on which it is outstanding.
func (m *mailbox) cancel() {
	for _, t := range m.targets {
		if t.outstanding {
			t.setOutstanding(false)
			t.device.cancel(t)
		}
	}
}

// record counts how an event ended. It is the one place where outcomes are
// counted; the caller holds the shard's lock.
func (sh *shard) record(o Outcome) Outcome {
	sh.counts.outcomes[o]++
	return o
}

// refuse notes that APNs refused a device with the newest event, or before it, or the push
// to it. s lacks the device.
func (m *mailbox) refuse(t *target, s RefusedSubscription) {
	if m.refused == nil {
		m.refused = &refusedDevices{at: make(map[deviceKey]int)}
	}
	s.App, s.Device = t.device.app.name, t.device.token
	key := deviceKey{t.device.app, t.device.token}
	if i, known := m.refused.at[key]; known {
		m.refused.list[i] = s
		return
	}
	m.refused.at[key] = len(m.refused.list)
	m.refused.list = append(m.refused.list, s)
}

// refusedDevices are the devices of a mailbox that APNs refused, with what was said of
// each last.
type refusedDevices struct {
	list []RefusedSubscription
	at   map[deviceKey]int // where in list
}
