package relay

import (
	"maps"
	"strings"
	"sync"
)

// shard owns the mailboxes that hash to it. Its mutex guards all of it and all
// that its mailboxes and their targets hold.
type shard struct {
	mu      sync.Mutex
	active  map[MailboxKey]*mailbox
	most    int // how many were active at once since the last shrink
	compact compactStore
	counts  counters
	dirty   *dirtySet // while subscriptions are warmed up
	_       [64]byte  // keeps the next shard's mutex off this cache line
}

// size returns how many mailboxes the shard knows.
func (sh *shard) size() int { return len(sh.active) + sh.compact.len() }

// add adds a mailbox that is active.
func (sh *shard) add(key MailboxKey) *mailbox {
	m := &mailbox{key: key, shard: sh}
	sh.active[key] = m
	sh.most = max(sh.most, len(sh.active))
	return m
}

// shrink gives back the memory of mailboxes that were compacted, or are not compact
// any more.
func (sh *shard) shrink() {
	sh.compact.shrink()
	if worthShrinking(len(sh.active), sh.most) {
		sh.active, sh.most = shrunk(sh.active), len(sh.active)
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

// findMailbox activates a compact mailbox, or makes room for an unknown one
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

// forgetOne drops a mailbox that is compact or idle, one whose version is no
// longer needed if it meets one soon.
func (r *Relay) forgetOne(sh *shard) bool {
	now, seen := r.now(), 0
	for hash, e := range sh.compact.all() { // in no order
		if seen++; e.orderAt() <= now-int64(orderMemory) || seen == min(forgetSample, sh.compact.len()) {
			r.forgetCompact(sh, hash, e)
			return true
		}
	}
	var victim *mailbox
	seen = 0
	for _, m := range sh.active { // in no order
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
