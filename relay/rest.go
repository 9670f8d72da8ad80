package relay

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"badgerelay/apns"
	"badgerelay/relay/lookup"
)

// restAfter is how long nothing must have happened with a mailbox before it is
// put to rest. It is long against the pauses between the mails of a busy hour,
// and short against the hours in which most mailboxes are quiet.
const restAfter = time.Minute

// A mailbox at rest is kept as one string, its record, which takes a quarter of
// the memory of a mailbox that is awake with its links and devices, and which
// the garbage collector has not to look into. The first event wakes it.
//
// A record reads, numbers as uvarints:
//
//	organization, size of the name, name, unread count plus 1, or 0 if none is known,
//	orderAt, and only if that is not 0: agent, observedAt in milliseconds (Unix),
//	orderAt less versionAt, plus 1, with a bit below it: whether agent did not set the
//	version; or 0 for no version, and only if not 0: epoch, version, and only with
//	the bit: versionAgent,
//	for each device: app, with two bits below it: whether shown is the mailbox's part
//	of what the device shows, or showed; and what is remembered of refusals; size of the token, token, registeredAt in milliseconds (Unix),
//	shownAt in units of 2^restTickBits ns, and only if not 0: shown,
//	and only with the lowest bit: the quarantine's generation, reason, refusals, and
//	its three times in milliseconds (Unix)
//
// Only what is quiet in every respect is put to rest, so nothing else about it
// is worth keeping.
type record string

// restTickBits makes the unit in which a record keeps the time of a badge: 2^20
// ns, about a millisecond, rounded down.
const restTickBits = 20

// key returns whose record it is. The name is a part of the record's memory.
func (rec record) key() MailboxKey {
	r := recordReader{left: string(rec)}
	return r.key()
}

// orderAt returns when what the record knows of order was set; 0: it knows nothing.
func (rec record) orderAt() int64 {
	r := recordReader{left: string(rec)}
	r.key()
	r.number() // the count
	return int64(r.number())
}

// recordReader reads a record from its start. Records are our own memory: one
// that ends too soon is a bug, and panics.
type recordReader struct {
	left string

	unread  uint32 // once order has read it
	counted bool   // whether it is known
}

func (r *recordReader) number() uint64 {
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

func (r *recordReader) text() string {
	n := r.number()
	s := r.left[:n]
	r.left = r.left[n:]
	return s
}

func (r *recordReader) key() MailboxKey {
	org := OrganizationID(r.number())
	return MailboxKey{Organization: org, Mailbox: r.text()}
}

// order returns what is known of order, and when the newest event came. It reads
// the mailbox's count as well.
func (r *recordReader) order() (o order, acceptedAt int64) {
	if n := r.number(); n > 0 {
		r.unread, r.counted = uint32(n-1), true
	}
	if acceptedAt = int64(r.number()); acceptedAt == 0 {
		return o, 0
	}
	o.agent, o.observedAt = agentHash(r.number()), int64(r.number())*int64(time.Millisecond)
	if age := r.number(); age != 0 {
		o.versionAt = acceptedAt - int64(age>>1) + 1
		o.epoch, o.version, o.versionAgent = r.number(), r.number(), o.agent
		if age&1 != 0 {
			o.versionAgent = agentHash(r.number())
		}
	}
	return o, acceptedAt
}

// restingDevice is what a record knows of a device.
type restingDevice struct {
	key          deviceKey
	registeredAt int64 // Unix milliseconds
	shown        uint32
	shownAt      int64 // on the relay's clock; 0: unknown
	part         bool  // it is what APNs accepted of the mailbox, and not what the device shows
	quarantine   *Quarantine
}

// count adds to the tally of an organization what a device at rest makes of it.
func (d *restingDevice) count(org OrganizationID, n int64) {
	if q := d.quarantine; q != nil && d.key.app.counts(q) {
		d.key.app.lane(org).refused.Add(n)
	}
}

// device reads the next device; false: there is no more.
func (r *recordReader) device(apps []*appState) (d restingDevice, ok bool) {
	if r.left == "" {
		return d, false
	}
	app := r.number()
	d.key.app, d.part = apps[app>>2], app&2 != 0
	d.key.token, _ = apns.DeviceTokenFromBytes(r.text()) // it was one when it was written
	d.registeredAt = int64(r.number())
	if d.shownAt = int64(r.number()) << restTickBits; d.shownAt != 0 {
		d.shown = uint32(r.number())
	}
	if app&1 != 0 {
		d.quarantine = r.quarantine()
	}
	return d, true
}

func (r *recordReader) quarantine() *Quarantine {
	q := &Quarantine{Generation: Generation(r.number())}
	q.Reason = apns.Reason(strings.Clone(r.text()))
	q.Refusals = int(r.number())
	for _, at := range []*time.Time{&q.Since, &q.RefusedAt, &q.Registered} {
		*at = time.UnixMilli(int64(r.number()))
	}
	return q
}

// quarantined reports whether something is remembered of refusals of a device
// of the app.
func (rec record) quarantined(app *appState, apps []*appState) bool {
	r := recordReader{left: string(rec)}
	r.key()
	r.order()
	for d, ok := r.device(apps); ok; d, ok = r.device(apps) {
		if d.key.app == app && d.quarantine != nil {
			return true
		}
	}
	return false
}

func appendRecordHead(b []byte, key MailboxKey) []byte {
	b = binary.AppendUvarint(b, uint64(key.Organization))
	b = binary.AppendUvarint(b, uint64(len(key.Mailbox)))
	return append(b, key.Mailbox...)
}

// appendRecordCount writes the newest count, if it is known.
func appendRecordCount(b []byte, unread uint32, counted bool) []byte {
	if !counted {
		return append(b, 0)
	}
	return binary.AppendUvarint(b, uint64(unread)+1)
}

// appendRecordOrder writes what still orders events. acceptedAt is when the
// newest came.
func appendRecordOrder(b []byte, o *order, acceptedAt, now int64) []byte {
	if !recent(acceptedAt, now) {
		return binary.AppendUvarint(b, 0) // a version was set then or before
	}
	b = binary.AppendUvarint(b, uint64(acceptedAt))
	b = binary.AppendUvarint(b, uint64(o.agent))
	b = binary.AppendUvarint(b, uint64(max(0, o.observedAt/int64(time.Millisecond))))
	if !o.remembersVersion(now) {
		return binary.AppendUvarint(b, 0)
	}
	age := uint64(acceptedAt-o.versionAt+1) << 1
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

func appendRecordDevice(b []byte, d *restingDevice) []byte {
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
	ticks := uint64(d.shownAt) >> restTickBits
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

// runRests puts quiet mailboxes to rest until ctx is done. Each shard has its
// turn once in restAfter.
func (r *Relay) runRests(ctx context.Context) {
	const perTurn = 8 // shards; a power of two
	turn := time.NewTicker(restAfter * perTurn / shards)
	defer turn.Stop()
	var buffer []byte
	rested := 0 // mailboxes, since a burst was over
	for first := 0; ; first = (first + perTurn) % shards {
		select {
		case <-turn.C:
		case <-ctx.Done():
			return
		}
		before := rested
		for i := range perTurn {
			n := 0
			buffer, n = r.restShard(&r.shards[first+i], buffer)
			rested += n
		}
		over := rested == before && rested >= max(worthACollection, r.devices.count()/32) // all that was busy is at rest
		if first == 0 || over {
			gone := r.devices.shrink()
			if over {
				gone, rested = rested, 0
			}
			giveBack(gone)
		}
	}
}

// restShard puts the quiet mailboxes of a shard to rest, a few under each hold
// of its lock. It returns buffer, grown, and how many mailboxes it put to rest.
func (r *Relay) restShard(sh *shard, buffer []byte) (grown []byte, rested int) {
	const atOnce = 64
	now := r.now()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	seen := 0
	for _, m := range sh.awake {
		if m.quiet(now) {
			if buffer = r.rest(m, now, buffer[:0]); sh.awake[m.key] != m {
				rested++
			}
		}
		if seen++; seen%atOnce == 0 { // let events pass; what they add is looked at now or next time
			sh.mu.Unlock()
			sh.mu.Lock()
		}
	}
	sh.shrink()
	return buffer, rested
}

// quiet reports whether nothing has happened with the mailbox for a while.
func (m *mailbox) quiet(now int64) bool {
	return m.idle() && now-m.acceptedAt >= int64(restAfter)
}

// remembers reports whether the mailbox's newest event still keeps older ones
// of other agents out.
func (m *mailbox) remembers(now int64) bool { return recent(m.acceptedAt, now) }

// rest puts a quiet mailbox to rest, if its devices are quiet too. One whose
// subscriptions have to be read anew anyway is forgotten instead. The caller
// holds the shard's lock.
func (r *Relay) rest(m *mailbox, now int64, b []byte) []byte {
	sh := m.shard
	if m.subs == lookup.Unknown {
		if !m.remembers(now) && !slices.ContainsFunc(m.links, func(l *link) bool { return !l.device.isQuiet(now) }) {
			r.forget(m)
		}
		return b
	}
	_, hash := r.shardOf(m.key.Organization, m.key.Mailbox)
	if _, taken := sh.resting[hash]; taken {
		return b // another mailbox has the same hash: this one stays awake
	}
	b = appendRecordHead(b, m.key)
	b = appendRecordCount(b, m.unread, m.counted)
	b = appendRecordOrder(b, &m.order, m.acceptedAt, now)
	for i, l := range m.links {
		d, ok := r.devices.rest(l, now)
		if !ok {
			r.undoCompact(m.links[:i], b)
			return b
		}
		b = appendRecordDevice(b, &d)
	}
	delete(sh.awake, m.key)
	sh.resting[hash] = record(b)
	return b
}

// undoCompact takes back that the first of a mailbox's devices, whose record b is,
// were put to rest, because another one is not quiet.
func (r *Relay) undoCompact(links []*link, b []byte) {
	reader := recordReader{left: string(b)}
	reader.key()
	reader.order()
	for _, l := range links {
		d, _ := reader.device(r.apps.all())
		r.devices.activate(l, &d, r)
	}
}

// activate wakes the mailbox that rests under this hash and key; nil: none does.
// The caller holds the shard's lock.
func (r *Relay) activate(sh *shard, hash uint64, key MailboxKey) *mailbox {
	rec, rests := sh.resting[hash]
	if !rests || rec.key() != key {
		return nil
	}
	delete(sh.resting, hash)
	reader := recordReader{left: string(rec)} // what is awake keeps its memory, for the name and the tokens
	m := sh.add(reader.key())
	m.subs = lookup.Known
	m.order, m.acceptedAt = reader.order()
	m.unread, m.counted = reader.unread, reader.counted
	m.links = m.firstOnly[:0]
	for {
		d, ok := reader.device(r.apps.all())
		if !ok {
			return m
		}
		l := m.newLink(d.key.app.lane(key.Organization))
		l.registeredAt = d.registeredAt
		r.devices.activate(l, &d, r)
		m.links = append(m.links, l)
	}
}

// forgetRecord drops a mailbox that rests. The caller holds the shard's lock.
func (r *Relay) forgetRecord(sh *shard, hash uint64, rec record) {
	reader := recordReader{left: string(rec)}
	key := reader.key()
	reader.order()
	for {
		d, ok := reader.device(r.apps.all())
		if !ok {
			break
		}
		r.devices.forget(d.key)
		d.count(key.Organization, -1)
	}
	delete(sh.resting, hash)
}
