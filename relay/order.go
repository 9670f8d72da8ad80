package relay

import (
	"hash/maphash"
	"time"
)

// orderMemory is how long an event keeps those out that other agents counted
// before it.
const orderMemory = 10 * time.Minute

// agentHash stands for an agent id. Two ids of one organization's agents meet
// in it with a chance of one in two thousand million, and nobody can choose
// them so that they do; then they are ordered like one.
type agentHash uint32

// instant is one moment on two clocks.
type instant struct {
	relay int64 // the relay's own
	wall  int64 // Unix nanoseconds
}

// order is what a mailbox remembers of its events to put those of different
// agents in order. The zero value remembers nothing.
//
// The events of one agent are in order as they come: its newest stream is the
// only one that is heard. Between agents versions order, where both have one and
// the epoch is the same and one is greater; else the time of observation; and
// what is older than orderMemory orders nothing.
type order struct {
	epoch, version uint64
	versionAt      int64     // when version was set, on the relay's clock; 0: none is remembered
	observedAt     int64     // when the newest event was observed, Unix nanoseconds
	agent          agentHash // of the newest event
	versionAgent   agentHash // who set version
}

// orderedEvent is what orders an event that came at now.
type orderedEvent struct {
	agent          agentHash
	epoch, version uint64 // both 0: it has no version
	observedAt     int64
	now            int64
}

// orderOf returns what orders an event. An observation cannot have been made
// later than now.
func orderOf(agent agentHash, e *Event, now instant) orderedEvent {
	by := orderedEvent{agent: agent, epoch: e.Epoch, version: e.Version, observedAt: now.wall, now: now.relay}
	if !e.ObservedAt.IsZero() {
		by.observedAt = min(e.ObservedAt.UnixNano(), now.wall)
	}
	return by
}

func (e *orderedEvent) versioned() bool { return e.epoch != 0 || e.version != 0 }

// stale reports whether another agent has sent something newer than e.
// receivedAt is when the newest event came; 0: there is none. same: it has e's count.
//
// The newest count again, in the same version, is not stale: its agent may know
// better than the relay that a device shows something else.
func (o *order) stale(e *orderedEvent, receivedAt int64, same bool) bool {
	if e.versioned() && o.remembersVersion(e.now) && o.versionAgent != e.agent && o.epoch == e.epoch && (same || o.version != e.version) {
		return e.version < o.version
	}
	return o.agent != e.agent && recent(receivedAt, e.now) && e.observedAt < o.observedAt
}

// take notes the mailbox's newest event. One without a version leaves the
// remembered one as it is.
func (o *order) take(e *orderedEvent) {
	o.agent, o.observedAt = e.agent, e.observedAt
	if e.versioned() {
		o.epoch, o.version, o.versionAgent, o.versionAt = e.epoch, e.version, e.agent, e.now
	}
}

func (o *order) remembersVersion(now int64) bool { return recent(o.versionAt, now) }

// recent reports whether what came at a time still orders; 0: it never came.
func recent(at, now int64) bool { return at != 0 && now-at < int64(orderMemory) }

// agentHash returns what stands for an agent id; never 0.
func (r *Relay) agentHash(agentID string) agentHash {
	return agentHash(maphash.String(r.seed, agentID)) | 1
}
