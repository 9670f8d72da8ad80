package relay

import (
	"context"
	"encoding/binary"
	"slices"
	"time"

	"badgerelay/apns"
	"badgerelay/relay/lookup"
)

// compactAfter is how long nothing must have happened with a mailbox before it is
// compacted. It is long against the pauses between the mails of a busy hour,
// and short against the hours in which most mailboxes are quiet.
const compactAfter = time.Minute

// A compact mailbox is kept encoded, in a fifth of the memory of one that is active
// with its targets and devices (compactStore). The first event activates it.
//
// It reads, numbers as uvarints:
//
//	organization, size of the name, name, unread count plus 1, or 0 if none is known,
//	receivedAt, and only if that is not 0: agent, observedAt in milliseconds (Unix),
//	receivedAt less versionAt, plus 1, with a bit below it: whether agent did not set the
//	version; or 0 for no version, and only if not 0: epoch, version, and only with
//	the bit: versionAgent,
//	for each device: app, with two bits below it: whether shown is the mailbox's part
//	of what the device shows, or showed; and what is remembered of refusals; size of the token, token, registeredAt in milliseconds (Unix),
//	shownAt in units of 2^compactTickBits ns, and only if not 0: shown,
//	and only with the lowest bit: the quarantine's generation, reason, refusals, and
//	its three times in milliseconds (Unix)
//
// Only what is idle in every respect is compacted, so nothing else about it
// is worth keeping.
//
// It is a piece of its compactStore's memory: the shard's lock guards it.
type encodedMailbox []byte

// compactTickBits makes the unit in which an encoded mailbox keeps the time of a badge: 2^20
// ns, about a millisecond, rounded down.
const compactTickBits = 20

// key returns which mailbox it is.
func (e encodedMailbox) key() MailboxKey {
	r := mailboxDecoder{left: e}
	return r.key()
}

// organization returns whose mailbox it is.
func (e encodedMailbox) organization() OrganizationID {
	r := mailboxDecoder{left: e}
	return OrganizationID(r.number())
}

// hasDevices reports whether anybody is subscribed.
func (e encodedMailbox) hasDevices() bool {
	r := mailboxDecoder{left: e}
	r.skipKey()
	r.order()
	return len(r.left) > 0
}

// orderAt returns when the newest event came; 0: none has.
func (e encodedMailbox) orderAt() int64 {
	r := mailboxDecoder{left: e}
	r.skipKey()
	r.number() // the count
	return int64(r.number())
}

// mailboxDecoder reads an encoded mailbox from its start. It is our own memory: one
// that ends too soon is a bug, and panics.
type mailboxDecoder struct {
	left []byte

	unread  uint32 // once order has read it
	counted bool   // whether it is known
}

func (r *mailboxDecoder) number() uint64 {
	var v uint64
	for i, shift := 0, 0; ; i, shift = i+1, shift+7 {
		b := r.left[i]
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			r.left = r.left[i+1:]
			return v
		}
	}
}

// text returns the next text, in the mailbox's memory.
func (r *mailboxDecoder) text() []byte {
	n := r.number()
	s := r.left[:n]
	r.left = r.left[n:]
	return s
}

func (r *mailboxDecoder) key() MailboxKey {
	org := OrganizationID(r.number())
	return MailboxKey{Organization: org, Mailbox: string(r.text())}
}

func (r *mailboxDecoder) skipKey() {
	r.number()
	r.text()
}

// order returns what is known of order, and when the newest event came. It reads
// the mailbox's count as well.
func (r *mailboxDecoder) order() (o order, receivedAt int64) {
	if n := r.number(); n > 0 {
		r.unread, r.counted = uint32(n-1), true
	}
	if receivedAt = int64(r.number()); receivedAt == 0 {
		return o, 0
	}
	o.agent, o.observedAt = agentHash(r.number()), int64(r.number())*int64(time.Millisecond)
	if age := r.number(); age != 0 {
		o.versionAt = receivedAt - int64(age>>1) + 1
		o.epoch, o.version, o.versionAgent = r.number(), r.number(), o.agent
		if age&1 != 0 {
			o.versionAgent = agentHash(r.number())
		}
	}
	return o, receivedAt
}

// compactDevice is what a compact mailbox knows of a device.
type compactDevice struct {
	key          deviceKey
	registeredAt int64 // Unix milliseconds
	shown        uint32
	shownAt      int64 // on the relay's clock; 0: unknown
	part         bool  // it is what APNs accepted of the mailbox, and not what the device shows
	quarantine   *Quarantine
}

// count adds a compact device to the counts of an organization.
func (d *compactDevice) count(org OrganizationID, n int) {
	if d.quarantine != nil {
		d.key.app.statsOf(org).noteRefused(d.quarantine, n)
	}
}

// device reads the next device; false: there is no more.
func (r *mailboxDecoder) device(apps []*appState) (d compactDevice, ok bool) {
	if len(r.left) == 0 {
		return d, false
	}
	app := r.number()
	d.key.app, d.part = apps[app>>2], app&2 != 0
	d.key.token, _ = apns.DeviceTokenFromBytes(r.text()) // it was one when it was written
	d.registeredAt = int64(r.number())
	if d.shownAt = int64(r.number()) << compactTickBits; d.shownAt != 0 {
		d.shown = uint32(r.number())
	}
	if app&1 != 0 {
		d.quarantine = r.quarantine()
	}
	return d, true
}

func (r *mailboxDecoder) quarantine() *Quarantine {
	q := &Quarantine{Generation: Generation(r.number())}
	q.Reason = apns.Reason(r.text())
	q.Refusals = int(r.number())
	for _, at := range []*time.Time{&q.Since, &q.RefusedAt, &q.Registered} {
		*at = time.UnixMilli(int64(r.number()))
	}
	return q
}

// quarantined reports whether something is remembered of refusals of a device
// of the app.
func (e encodedMailbox) quarantined(app *appState, apps []*appState) bool {
	r := mailboxDecoder{left: e}
	r.skipKey()
	r.order()
	for d, ok := r.device(apps); ok; d, ok = r.device(apps) {
		if d.key.app == app && d.quarantine != nil {
			return true
		}
	}
	return false
}

func encodeHead(b []byte, key MailboxKey) []byte {
	b = binary.AppendUvarint(b, uint64(key.Organization))
	b = binary.AppendUvarint(b, uint64(len(key.Mailbox)))
	return append(b, key.Mailbox...)
}

// encodeCount writes the newest count, if it is known.
func encodeCount(b []byte, unread uint32, counted bool) []byte {
	if !counted {
		return append(b, 0)
	}
	return binary.AppendUvarint(b, uint64(unread)+1)
}

// encodeOrder writes what orders events. receivedAt is when the newest came; 0: none has.
// However long ago that was, it orders the count among those that other relays remember.
func encodeOrder(b []byte, o *order, receivedAt, now int64) []byte {
	b = binary.AppendUvarint(b, uint64(receivedAt))
	if receivedAt == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(o.agent))
	b = binary.AppendUvarint(b, uint64(max(0, o.observedAt/int64(time.Millisecond))))
	if !o.remembersVersion(now) {
		return binary.AppendUvarint(b, 0)
	}
	age := uint64(receivedAt-o.versionAt+1) << 1
	if o.versionAgent != o.agent {
		age |= 1
	}
	b = binary.AppendUvarint(b, age)
	b = binary.AppendUvarint(b, o.epoch)
	b = binary.AppendUvarint(b, o.version)
	if o.versionAgent != o.agent {
		b = binary.AppendUvarint(b, uint64(o.versionAgent))
	}
	return b
}

func encodeDevice(b []byte, d *compactDevice) []byte {
	app := uint64(d.key.app.index) << 2
	if d.part {
		app |= 2
	}
	if d.quarantine != nil {
		app |= 1
	}
	b = binary.AppendUvarint(b, app)
	b = binary.AppendUvarint(b, uint64(d.key.token.Size()))
	b = d.key.token.AppendRaw(b)
	b = binary.AppendUvarint(b, uint64(d.registeredAt))
	ticks := uint64(d.shownAt) >> compactTickBits
	b = binary.AppendUvarint(b, ticks)
	if ticks != 0 {
		b = binary.AppendUvarint(b, uint64(d.shown))
	}
	q := d.quarantine
	if q == nil {
		return b
	}
	b = binary.AppendUvarint(b, uint64(q.Generation))
	b = binary.AppendUvarint(b, uint64(len(q.Reason)))
	b = append(b, q.Reason...)
	b = binary.AppendUvarint(b, uint64(q.Refusals))
	for _, at := range []time.Time{q.Since, q.RefusedAt, q.Registered} {
		b = binary.AppendUvarint(b, uint64(at.UnixMilli()))
	}
	return b
}

// runCompaction compacts idle mailboxes until ctx is done. Each shard has its
// turn once in compactAfter.
func (r *Relay) runCompaction(ctx context.Context) {
	const perTurn = 8 // shards; a power of two
	turn := time.NewTicker(compactAfter * perTurn / shards)
	defer turn.Stop()
	var buffer []byte
	compacted := 0 // mailboxes, since a burst was over
	for first := 0; ; first = (first + perTurn) % shards {
		select {
		case <-turn.C:
		case <-ctx.Done():
			return
		}
		before := compacted
		for i := range perTurn {
			n := 0
			buffer, n = r.compactShard(&r.shards[first+i], buffer)
			compacted += n
		}
		over := compacted == before && compacted >= worthACollection && compacted >= r.devices.count()/32 // all that was busy is compact
		if first == 0 || over {
			gone := r.devices.shrink()
			if over {
				gone, compacted = compacted, 0
			}
			giveBack(gone)
		}
	}
}

// compactShard compacts the idle mailboxes of a shard, a few under each hold
// of its lock. It returns buffer, grown, and how many mailboxes it compacted.
func (r *Relay) compactShard(sh *shard, buffer []byte) (grown []byte, compacted int) {
	const atOnce = 64
	now := r.now()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	seen := 0
	for m := range sh.active.all() {
		if m.idleForCompaction(now) {
			var gone bool
			if buffer, gone = r.compactMailbox(m, now, buffer[:0]); gone {
				compacted++
			}
		}
		if seen++; seen%atOnce == 0 { // let events pass; what they add is looked at now or next time
			sh.mu.Unlock()
			sh.mu.Lock()
		}
	}
	sh.shrink()
	return buffer, compacted
}

// idleForCompaction reports whether the mailbox is idle, and no event has come for
// compactAfter.
func (m *mailbox) idleForCompaction(now int64) bool {
	return m.idle() && now-m.receivedAt >= int64(compactAfter)
}

// remembers reports whether the mailbox's newest event still keeps older ones
// of other agents out.
func (m *mailbox) remembers(now int64) bool { return recent(m.receivedAt, now) }

// compactMailbox compacts an idle mailbox, if its devices are idle too. One whose
// subscriptions have to be read anew anyway is forgotten instead. It returns b,
// which it encodes into, and whether the mailbox is not active any more. The caller
// holds the shard's lock.
func (r *Relay) compactMailbox(m *mailbox, now int64, b []byte) (grown []byte, gone bool) {
	sh := m.shard
	if m.subs == lookup.Unknown {
		if m.remembers(now) || slices.ContainsFunc(m.targets, func(t *target) bool { return !t.device.isIdle(now) }) {
			return b, false
		}
		r.forget(m)
		return b, true
	}
	_, hash := r.shardOf(m.key.Organization, m.key.Mailbox)
	if sh.compact.has(hash) || sh.compact.full() {
		return b, false // another mailbox has the same hash, or there is no room: this one stays active
	}
	b = encodeHead(b, m.key)
	b = encodeCount(b, m.unread, m.counted)
	b = encodeOrder(b, &m.order, m.receivedAt, now)
	for i, t := range m.targets {
		d, ok := r.devices.compact(t, now)
		if !ok {
			r.undoCompact(m.targets[:i], b)
			return b, false
		}
		b = encodeDevice(b, &d)
	}
	sh.active.remove(hash, m)
	sh.compact.put(hash, b)
	return b, true
}

// undoCompact takes back that the first of a mailbox's devices, encoded in b,
// were compacted, because another one is not idle.
func (r *Relay) undoCompact(targets []*target, b []byte) {
	reader := mailboxDecoder{left: b}
	reader.skipKey()
	reader.order()
	for _, t := range targets {
		d, _ := reader.device(r.apps.all())
		r.devices.activate(t, &d, r)
	}
}

// activate makes the compact mailbox of this hash and key active; nil: there is none.
// The caller holds the shard's lock.
func (r *Relay) activate(sh *shard, hash uint64, key MailboxKey) *mailbox {
	e, found := sh.compact.get(hash)
	if !found {
		return nil
	}
	reader := mailboxDecoder{left: e}
	own := reader.key()
	if own != key {
		return nil
	}
	sh.compact.remove(hash) // its memory stays as it is until the next is put
	m := sh.add(hash, own)
	m.subs = lookup.Known
	m.order, m.receivedAt = reader.order()
	m.unread, m.counted = reader.unread, reader.counted
	m.targets = m.firstOnly[:0]
	for {
		d, ok := reader.device(r.apps.all())
		if !ok {
			m.awaitProbes(r) // the warm-up may have read that a device is called gone
			return m
		}
		t := m.newTarget(d.key.app.statsOf(key.Organization))
		t.registeredAt = d.registeredAt
		r.devices.activate(t, &d, r)
		m.targets = append(m.targets, t)
	}
}

// forgetCompact drops a compact mailbox. The caller holds the shard's lock.
func (r *Relay) forgetCompact(sh *shard, hash uint64, e encodedMailbox) {
	reader := mailboxDecoder{left: e}
	reader.skipKey()
	reader.order()
	for {
		d, ok := reader.device(r.apps.all())
		if !ok {
			break
		}
		r.devices.unref(d.key)
		d.count(e.organization(), -1)
	}
	sh.compact.remove(hash)
}
