package relay

import (
	"maps"
	"strings"
	"sync"
)

// shard owns the mailboxes that hash to it. Its mutex guards all of it and all
// that its mailboxes and their links hold.
type shard struct {
	mu      sync.Mutex
	awake   map[MailboxKey]*mailbox
	most    int               // how many were awake at once since the last shrink
	resting map[uint64]record // by the hash of their key; no two have one hash
	counts  counters
	news    *news    // while subscriptions are warmed up
	_       [64]byte // keeps the next shard's mutex off this cache line
}

// size returns how many mailboxes the shard knows.
func (sh *shard) size() int { return len(sh.awake) + len(sh.resting) }

// add adds a mailbox that is awake.
func (sh *shard) add(key MailboxKey) *mailbox {
	m := &mailbox{key: key, shard: sh}
	sh.awake[key] = m
	sh.most = max(sh.most, len(sh.awake))
	return m
}

// shrink gives back the memory of mailboxes that went to rest.
func (sh *shard) shrink() {
	if worthShrinking(len(sh.awake), sh.most) {
		sh.awake, sh.most = shrunk(sh.awake), len(sh.awake)
	}
}

// worthShrinking reports whether little is left of what there was at most: a copy
// takes time.
func worthShrinking(left, most int) bool { return most > 64 && left < most/4 }

// shrunk returns a copy of a map that takes no more memory than it needs. Go's
// maps keep what they took.
func shrunk[K comparable, V any](m map[K]V) map[K]V {
	small := make(map[K]V, len(m))
	maps.Copy(small, m)
	return small
}

// findMailbox wakes a mailbox that is at rest, or makes room for an unknown one
// and adds it. It returns nil at the limit when none can be forgotten. The
// caller holds the shard's lock.
func (r *Relay) findMailbox(sh *shard, hash uint64, key MailboxKey) *mailbox {
	if m := r.activate(sh, hash, key); m != nil {
		return m
	}
	if sh.size() >= r.maxPerShard && !r.forgetOne(sh) {
		return nil
	}
	key.Mailbox = strings.Clone(key.Mailbox)
	return sh.add(key)
}

// forgetSample is how many mailboxes forgetOne looks at for a better victim.
const forgetSample = 16

// forgetOne drops a mailbox that is at rest or idle, one whose version is no
// longer needed if it meets one soon.
func (r *Relay) forgetOne(sh *shard) bool {
	now, seen := r.now(), 0
	for hash, rec := range sh.resting { // in no order
		if seen++; rec.orderAt() <= now-int64(orderMemory) || seen == min(forgetSample, len(sh.resting)) {
			r.forgetRecord(sh, hash, rec)
			return true
		}
	}
	var victim *mailbox
	seen = 0
	for _, m := range sh.awake { // in no order
		if m.idle() && (victim == nil || victim.remembers(now)) {
			victim = m
		}
		if seen++; seen == forgetSample {
			break
		}
	}
	if victim == nil {
		return false
	}
	r.forget(victim)
	return true
}
