package relay

import (
	"slices"
	"strings"
	"sync"
)

// shard owns the mailboxes that hash to it. Its mutex guards all of it and all
// that its mailboxes and their links hold.
type shard struct {
	mu      sync.Mutex
	index   index[mailbox] // those awake
	awake   []*mailbox     // the same, in no order
	most    int            // how many were awake at once since the last shrink
	resting index[packed]  // those at rest; no two have one hash
	counts  counters
	news    *news    // while subscriptions are warmed up
	_       [64]byte // keeps the next shard's mutex off this cache line
}

// size returns how many mailboxes the shard knows.
func (sh *shard) size() int { return len(sh.awake) + sh.resting.count }

// find returns a mailbox that is awake; nil: it is not.
func (sh *shard) find(hash uint64, key MailboxKey) *mailbox {
	return sh.index.find(hash, func(m *mailbox) bool { return m.key == key })
}

// atRest returns the record of a mailbox at rest; nil: none has this hash.
func (sh *shard) atRest(hash uint64) *packed {
	return sh.resting.find(hash, func(*packed) bool { return true })
}

// add adds a mailbox that is awake. It keeps a long name.
func (sh *shard) add(key MailboxKey, hash uint64) *mailbox {
	m := &mailbox{shard: sh, position: int32(len(sh.awake))}
	m.setKey(key)
	sh.awake = append(sh.awake, m)
	sh.most = max(sh.most, len(sh.awake))
	sh.index.add(hash, m)
	return m
}

// remove takes a mailbox, whose key has this hash, from those awake.
func (sh *shard) remove(m *mailbox, hash uint64) {
	last := sh.awake[len(sh.awake)-1]
	sh.awake[m.position], last.position = last, m.position
	sh.awake[len(sh.awake)-1] = nil
	sh.awake = sh.awake[:len(sh.awake)-1]
	sh.index.remove(hash, m)
}

// shrink gives back the memory of mailboxes that went to rest: Go's maps and
// slices keep it. It copies what is left, and so waits until that is little.
func (sh *shard) shrink() {
	if !worthShrinking(len(sh.awake), sh.most) {
		return
	}
	sh.awake, sh.most = slices.Clone(sh.awake), len(sh.awake)
	sh.index.shrink()
}

// worthShrinking reports whether little is left of what there was at most.
func worthShrinking(left, most int) bool { return most > 64 && left < most/4 }

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
	if len(key.Mailbox) > len(mailbox{}.name) {
		key.Mailbox = strings.Clone(key.Mailbox)
	}
	return sh.add(key, hash)
}

// forgetSample is how many mailboxes forgetOne looks at for a better victim.
const forgetSample = 16

// forgetOne drops a mailbox that is at rest or idle, one whose version is no
// longer needed if it meets one soon.
func (r *Relay) forgetOne(sh *shard) bool {
	now, seen := r.now(), 0
	for hash, p := range sh.resting.each(int(r.random(int64(len(sh.resting.all()) + 1)))) {
		if seen++; p.record().orderAt() <= now-int64(orderMemory) || seen == forgetSample || seen == sh.resting.count {
			r.forgetRecord(sh, hash, p)
			return true
		}
	}
	var victim *mailbox
	for range min(forgetSample, len(sh.awake)) {
		m := sh.awake[r.random(int64(len(sh.awake)))]
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
