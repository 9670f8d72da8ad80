package relay

import (
	"context"
	"errors"
	"time"
)

// errFull ends the warm-up early.
var errFull = errors.New("no room for more mailboxes")

// roomForFew: less than one mailbox in so many finds room.
const roomForFew = 4

// warmUp reads every subscription once and compacts the mailboxes, so that
// the first event of a mailbox finds its devices in memory: a scan costs a
// fraction of as many look-ups. Events are taken meanwhile; what they or the
// change feed brought is newer, and stays.
//
// Where there is room for few of them nothing is read ahead: most would be of
// agents that are at other relays, and the database would read, or even sort,
// what nobody keeps.
func (r *Relay) warmUp(ctx context.Context) {
	if err := r.outage("read shared devices").Retry(ctx, func() error { return r.loadShared(ctx) }); err != nil {
		return // ctx is done
	}
	if room := shards * float64(r.maxPerShard); float64(r.expected) > roomForFew*room {
		r.logger.Info("subscriptions are not read ahead", "mailboxes", r.expected, "room", room)
		return
	}
	for i := range r.shards {
		r.shards[i].setWarming(&dirtySet{changed: map[uint64]struct{}{}, gone: map[OrganizationID]struct{}{}})
	}
	began := time.Now()
	var w warming
	err := r.outage("warm up").Retry(ctx, func() error {
		w = warming{relay: r}
		return w.scan(ctx)
	})
	for i := range r.shards {
		r.shards[i].setWarming(nil)
	}
	if err != nil {
		return // ctx is done
	}
	giveBack(w.devices)
	r.checkHealth() // by the quarantines that were read
	r.logger.Info("subscriptions are in memory", "mailboxes", w.mailboxes, "devices", w.devices,
		"complete", !w.full, "duration", time.Since(began).Round(time.Millisecond))
}

// dirtySet is what the change feed told of a shard's mailboxes since the warm-up
// began: the scan may know less. The shard's mutex guards it.
type dirtySet struct {
	changed map[uint64]struct{} // hashes of mailboxes
	gone    map[OrganizationID]struct{}
}

// has reports whether there is any of a mailbox. A nil dirtySet has none.
func (n *dirtySet) has(org OrganizationID, hash uint64) bool {
	if n == nil {
		return false
	}
	_, changed := n.changed[hash]
	_, gone := n.gone[org]
	return changed || gone
}

// setWarming says that the shard is being warmed up, or with nil that it is not
// any more.
func (sh *shard) setWarming(n *dirtySet) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.dirty = n
}

// warming is one scan of the registry.
type warming struct {
	relay  *Relay
	key    MailboxKey // of the devices being gathered
	found  []compactDevice
	buffer []byte

	mailboxes, devices int
	full               bool
}

func (w *warming) scan(ctx context.Context) error {
	err := w.relay.subscriptions.Scan(ctx, w.take)
	if err == nil {
		err = w.flush()
	}
	if errors.Is(err, errFull) {
		w.full = true
		return nil
	}
	return err
}

// take gathers the devices of one mailbox after the other.
func (w *warming) take(batch []Entry) error {
	for i := range batch {
		e := &batch[i]
		if e.Key != w.key {
			if err := w.flush(); err != nil {
				return err
			}
			w.key = e.Key
		}
		app := w.relay.apps.named(e.Subscription.App)
		if app == nil {
			continue
		}
		w.found = append(w.found, compactDevice{
			key: deviceKey{app, e.Subscription.Device}, registeredAt: unixMilli(e.Subscription.RegisteredAt),
			quarantine: e.Subscription.Quarantine,
		})
	}
	return nil
}

// flush compacts the mailbox whose devices were gathered, unless more is
// known of it by now.
func (w *warming) flush() error {
	r, key := w.relay, w.key
	found := w.found
	w.key, w.found = MailboxKey{}, w.found[:0]
	if len(found) == 0 {
		return nil
	}
	w.buffer = append(encodeHead(w.buffer[:0], key), 0, 0) // neither a count nor an order is known
	for i := range found {
		w.buffer = encodeDevice(w.buffer, &found[i])
	}
	sh, hash := r.shardOf(key.Organization, key.Mailbox)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.size() >= r.maxPerShard {
		return errFull
	}
	if sh.compact.has(hash) || sh.compact.full() || sh.active.find(hash, key) != nil || sh.dirty.has(key.Organization, hash) {
		return nil
	}
	for i := range found {
		r.devices.ref(found[i].key)
		found[i].count(key.Organization, 1)
	}
	sh.compact.put(hash, w.buffer)
	w.mailboxes++
	w.devices += len(found)
	return nil
}
