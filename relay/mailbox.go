package relay

import (
	"math/rand/v2"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"badgerelay/apns"
)

// versionMemory is how long a remembered version keeps older events out: after
// that a restored mailbox whose numbers went back is believed again.
const versionMemory = 10 * time.Minute

// shard owns the mailboxes that hash to it. Its mutex guards all of it and all
// that its mailboxes and their links hold.
type shard struct {
	mu        sync.Mutex
	mailboxes map[MailboxKey]*mailbox // those awake
	awake     []*mailbox              // the same, in no order
	resting   map[uint64]record       // those at rest, by hash
	counts    counters
	news      *news    // while subscriptions are warmed up
	_         [64]byte // keeps the next shard's mutex off this cache line
}

// size returns how many mailboxes the shard knows.
func (sh *shard) size() int { return len(sh.awake) + len(sh.resting) }

// add adds a mailbox that is awake. It keeps the key's name.
func (sh *shard) add(key MailboxKey, hash uint64) *mailbox {
	m := &mailbox{key: key, hash: hash, shard: sh, position: len(sh.awake)}
	sh.awake = append(sh.awake, m)
	sh.mailboxes[key] = m
	return m
}

// remove takes a mailbox from those awake.
func (sh *shard) remove(m *mailbox) {
	last := sh.awake[len(sh.awake)-1]
	sh.awake[m.position], last.position = last, m.position
	sh.awake[len(sh.awake)-1] = nil
	sh.awake = sh.awake[:len(sh.awake)-1]
	delete(sh.mailboxes, m.key)
}

// knowledge says what a mailbox's links are worth.
type knowledge uint8

const (
	subscriptionsUnknown knowledge = iota // not read, or changed since: read before the next event counts
	subscriptionsLoading                  // being read
	subscriptionsChanged                  // being read, and changed meanwhile: read once more
	subscriptionsKnown
)

// mailbox is the newest event of one mailbox and where it has to go.
type mailbox struct {
	key      MailboxKey
	hash     uint64 // of key
	shard    *shard
	position int // in shard.awake
	links    []*link
	subs     knowledge

	// The newest event, and how far it is.
	unread         uint32
	generation     uint32 // counts events, so that a late answer is not taken for the newest
	epoch, version uint64
	versionAt      int64 // when version was set, on the relay's clock; 0: none is remembered
	acceptedAt     int64
	sequence       uint64
	stream         *Stream // who is told; nil: nobody waits
	pending        bool    // the newest event has not settled
	held           bool    // it waits for the end of the window
	windowOpen     bool
	owed           int  // links on which the event is not done
	delivered      bool // APNs accepted it for some device
	displaced      bool // another organization's newer event took its place on a device
	refused        []RemovedSubscription

	// The list of the stream's pending mailboxes; guarded by Stream.mu too.
	nextPending, prevPending *mailbox
}

// link ties a mailbox to one of its devices.
type link struct {
	mailbox   *mailbox
	device    *device
	lane      *lane  // where the device queues on behalf of this organization
	owed      bool   // the mailbox's newest event is not done here
	delivered uint32 // generation that APNs accepted here last

	// Guarded by the device's lock.
	registeredAt time.Time // last registration
	refused      bool      // APNs refused the device for good
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
func (r *Relay) accept(s *Stream, sequence uint64, e *Event, now int64, fx *effects) {
	sh, hash := r.shardOf(s.org, e.Mailbox)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.counts.accepted++
	if field, rule := e.check(); field != "" {
		r.reject(sh, s, sequence, field, rule, fx)
		return
	}
	m := sh.mailboxes[MailboxKey{s.org, e.Mailbox}]
	if m == nil {
		if m = r.findMailbox(sh, hash, MailboxKey{s.org, e.Mailbox}); m == nil {
			// Our lack of room is not the event's fault: the agent keeps it.
			fx.settled(s, sh.record(OutcomeAbandoned), sequence, nil)
			return
		}
	}
	if m.olderThanKnown(e, now) {
		fx.settled(s, sh.record(OutcomeStale), sequence, nil)
		return
	}
	r.supersede(m, fx)
	m.take(s, sequence, e, now)
	if !s.attach(m) {
		m.stream = nil
		r.settleAs(m, OutcomeAbandoned, fx)
		return
	}
	r.advance(m, now, fx)
}

// reject settles an event that breaks a rule.
func (r *Relay) reject(sh *shard, s *Stream, sequence uint64, field, rule string, fx *effects) {
	fx.settled(s, sh.record(OutcomeRejected), sequence, &EventOutcome{
		Sequence: sequence, Outcome: OutcomeRejected, Field: field, Detail: rule,
	})
}

// olderThanKnown reports whether the mailbox's remembered version is newer.
func (m *mailbox) olderThanKnown(e *Event, now int64) bool {
	if e.Epoch == 0 && e.Version == 0 || !m.remembers(now) {
		return false
	}
	return e.Epoch < m.epoch || e.Epoch == m.epoch && e.Version < m.version
}

// supersede ends the event that a newer one replaces.
func (r *Relay) supersede(m *mailbox, fx *effects) {
	if m.pending {
		r.settleAs(m, OutcomeSuperseded, fx)
	}
}

// take makes e the mailbox's newest event.
func (m *mailbox) take(s *Stream, sequence uint64, e *Event, now int64) {
	m.generation++
	m.unread = e.Unread
	m.stream, m.sequence = s, sequence
	m.acceptedAt = now
	m.pending = true
	m.delivered, m.displaced, m.refused = false, false, nil
	m.epoch, m.version, m.versionAt = e.Epoch, e.Version, now
	if e.Epoch == 0 && e.Version == 0 {
		m.versionAt = 0
	}
}

// advance moves a pending event on: to the look-up of its subscriptions, to the
// window, or out to the devices. The caller holds the shard's lock.
func (r *Relay) advance(m *mailbox, now int64, fx *effects) {
	switch {
	case m.subs == subscriptionsUnknown:
		m.subs = subscriptionsLoading
		fx.lookups = append(fx.lookups, m)
	case m.subs != subscriptionsKnown: // the look-up's end goes on from here
	case len(m.links) == 0:
		r.settleAs(m, OutcomeNoSubscription, fx)
	case m.windowOpen && !r.draining.Load():
		m.hold()
	default:
		r.fanOut(m, now, fx)
	}
}

// findMailbox wakes a mailbox that is at rest, or makes room for an unknown one
// and adds it. It returns nil at the limit when none can be forgotten. The
// caller holds the shard's lock.
func (r *Relay) findMailbox(sh *shard, hash uint64, key MailboxKey) *mailbox {
	if m := r.rouse(sh, hash, key); m != nil {
		return m
	}
	if sh.size() >= r.maxPerShard && !r.forgetOne(sh) {
		return nil
	}
	key.Mailbox = strings.Clone(key.Mailbox)
	return sh.add(key, hash)
}

// forgetSample is how many mailboxes forgetOne looks at for a better victim.
const forgetSample = 16

// forgetOne drops a mailbox that is at rest or idle, one whose version is no
// longer needed if it meets one soon.
func (r *Relay) forgetOne(sh *shard) bool {
	now, seen := r.now(), 0
	for hash, rec := range sh.resting { // the order of a Go map is random enough
		at := rec.versionAt()
		if seen++; at == 0 || now-at >= int64(versionMemory) || seen == forgetSample || seen == len(sh.resting) {
			r.forgetRecord(sh, hash)
			return true
		}
	}
	var victim *mailbox
	for range min(forgetSample, len(sh.awake)) {
		m := sh.awake[rand.IntN(len(sh.awake))]
		if m.idle() && (victim == nil || victim.remembers(now)) {
			victim = m
		}
	}
	if victim == nil {
		return false
	}
	r.forget(victim)
	return true
}

// idle reports whether nothing is going on with the mailbox.
func (m *mailbox) idle() bool {
	return !m.pending && !m.windowOpen && (m.subs == subscriptionsKnown || m.subs == subscriptionsUnknown)
}

// forget drops a mailbox that is idle.
func (r *Relay) forget(m *mailbox) {
	for _, l := range m.links {
		r.devices.release(l)
	}
	m.shard.remove(m)
}

// abandon ends a pending event whose stream closed.
func (r *Relay) abandon(s *Stream, m *mailbox) {
	var fx effects
	m.shard.mu.Lock()
	if m.pending && m.stream == s {
		r.settleAs(m, OutcomeAbandoned, &fx)
	}
	m.shard.mu.Unlock()
	r.apply(&fx)
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
func (r *Relay) settleIfDone(m *mailbox, fx *effects) {
	if !m.pending || m.held || m.owed > 0 || m.subs != subscriptionsKnown {
		return
	}
	switch {
	case m.delivered:
		r.settleAs(m, OutcomeDelivered, fx)
	case len(m.refused) > 0:
		r.settleAs(m, OutcomeUndeliverable, fx)
	case m.displaced:
		r.settleAs(m, OutcomeSuperseded, fx)
	case len(m.links) == 0:
		r.settleAs(m, OutcomeNoSubscription, fx)
	default:
		r.settleAs(m, OutcomeUnchanged, fx)
	}
}

// settleAs ends the newest event. It is the one place where a pending event
// ends; the caller holds the shard's lock.
func (r *Relay) settleAs(m *mailbox, outcome Outcome, fx *effects) {
	sh := m.shard
	m.pending, m.held = false, false
	sh.record(outcome)
	if outcome == OutcomeDelivered {
		sh.counts.settle.observe(r.now() - m.acceptedAt)
	}
	if outcome == OutcomeAbandoned {
		m.withdraw()
	}
	fx.drained = true
	s := m.stream
	if s == nil {
		return
	}
	m.stream = nil
	s.detach(m)
	var detail *EventOutcome
	if outcome == OutcomeUndeliverable {
		detail = &EventOutcome{
			Sequence: m.sequence, Outcome: outcome, Removed: m.refused,
			Detail: "APNs refused every device: " + string(m.refused[0].Reason),
		}
	}
	fx.settled(s, outcome, m.sequence, detail)
}

// withdraw takes the mailbox's claims off its devices.
func (m *mailbox) withdraw() {
	for _, l := range m.links {
		if l.owed {
			l.owed = false
			l.device.withdraw(l)
		}
	}
	m.owed = 0
}

// record counts how an event ended. It is the one place where outcomes are
// counted; the caller holds the shard's lock.
func (sh *shard) record(o Outcome) Outcome {
	sh.counts.outcomes[o]++
	return o
}

// refuse notes that APNs refused a device for good.
func (m *mailbox) refuse(l *link, reason apns.Reason) {
	m.refused = append(m.refused, RemovedSubscription{App: l.device.app.name, Device: l.device.token, Reason: reason})
}
