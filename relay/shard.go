package relay

import (
	"iter"
	"maps"
	"strings"
	"sync"
)

// shard owns the mailboxes that hash to it. Its mutex guards all of it and all
// that its mailboxes and their targets hold.
type shard struct {
	mu      sync.Mutex
	active  activeMailboxes
	compact compactStore
	counts  counters
	dirty   *dirtySet // while subscriptions are warmed up
	_       [64]byte  // keeps the next shard's mutex off this cache line
}

// size returns how many mailboxes the shard knows.
func (sh *shard) size() int { return sh.active.len() + sh.compact.len() }

// add adds a mailbox that is active.
func (sh *shard) add(hash uint64, key MailboxKey) *mailbox {
	m := &mailbox{key: key, shard: sh}
	sh.active.add(hash, m)
	return m
}

// shrink gives back the memory of mailboxes that were compacted, or are not compact
// any more.
func (sh *shard) shrink() {
	sh.compact.shrink()
	sh.active.shrink()
}

// activeMailboxes holds a shard's active mailboxes by the hash of their key. Found by
// the key itself they would take a map of twice the memory, too much for a core's
// caches when there are a million. The zero value is empty.
type activeMailboxes struct {
	byHash map[uint64]*mailbox
	others map[MailboxKey]*mailbox // those whose hash had been taken
	most   int                     // how many there were at once since the last shrink
}

func (a *activeMailboxes) len() int { return len(a.byHash) + len(a.others) }

// find returns the mailbox, or nil.
func (a *activeMailboxes) find(hash uint64, key MailboxKey) *mailbox {
	if m := a.byHash[hash]; m != nil && m.key == key {
		return m
	}
	return a.others[key]
}

// add adds a mailbox that is not there.
func (a *activeMailboxes) add(hash uint64, m *mailbox) {
	switch {
	case a.byHash[hash] != nil && a.others == nil:
		a.others = map[MailboxKey]*mailbox{m.key: m}
	case a.byHash[hash] != nil:
		a.others[m.key] = m
	case a.byHash == nil:
		a.byHash = map[uint64]*mailbox{hash: m}
	default:
		a.byHash[hash] = m
	}
	a.most = max(a.most, a.len())
}

// remove takes a mailbox out that is there.
func (a *activeMailboxes) remove(hash uint64, m *mailbox) {
	if a.byHash[hash] == m {
		delete(a.byHash, hash)
	} else {
		delete(a.others, m.key)
	}
}

// all returns all mailboxes, in no order. They may be removed meanwhile, and others
// added.
func (a *activeMailboxes) all() iter.Seq[*mailbox] {
	return func(yield func(*mailbox) bool) {
		for _, m := range a.byHash {
			if !yield(m) {
				return
			}
		}
		for _, m := range a.others {
			if !yield(m) {
				return
			}
		}
	}
}

// shrink gives back the memory of mailboxes that are gone, where it is worth the work.
func (a *activeMailboxes) shrink() {
	if worthShrinking(a.len(), a.most) {
		a.byHash, a.most = shrunk(a.byHash), a.len()
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
	return sh.add(hash, key)
}

// forgetSample is how many mailboxes forgetOne looks at for a better victim.
const forgetSample = 16

// forgetOne drops a mailbox that is compact or idle, one whose version is no
// longer needed if it meets one soon.
func (r *Relay) forgetOne(sh *shard) bool {
	now, seen := r.now(), 0
	for hash, e := range sh.compact.all() {
		if seen++; e.orderAt() <= now-int64(orderMemory) || seen == min(forgetSample, sh.compact.len()) {
			r.forgetCompact(sh, hash, e)
			return true
		}
	}
	var victim *mailbox
	seen = 0
	for m := range sh.active.all() {
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
