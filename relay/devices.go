package relay

import (
	"hash/maphash"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"badgerelay/apns"
)

// deviceKey names a device among all apps.
type deviceKey struct {
	app   *appState
	token apns.DeviceToken
}

// deviceTables is how many tables share the devices; a power of two, well above the
// number of cores.
const deviceTables = 256

// devices knows which devices there are: those of mailboxes that are active one
// by one, the others by the hash of their key.
type devices struct {
	seed   maphash.Seed
	tables [deviceTables]deviceTable
	shared atomic.Int64 // how many the registry calls shared
}

// deviceTable is a part of devices. Its mutex guards all of it, and its devices.
type deviceTable struct {
	mu     sync.Mutex
	active map[deviceKey]*device
	most   int // how many were active at once since the last shrink

	// known holds the hash of every device that a mailbox points to, active or
	// compact. several counts the mailboxes of those that several pointed to: the
	// device is shared, or is on its way from one mailbox to another. What a
	// compact mailbox believes of such a device may be wrong, so several keeps
	// the device until its one mailbox left, active, knows better.
	known   map[uint64]struct{}
	several map[uint64]int

	// told holds those that the registry calls shared.
	told map[uint64]struct{}
}

func newDevices() *devices {
	t := &devices{seed: maphash.MakeSeed()}
	for i := range t.tables {
		t.tables[i] = deviceTable{
			active: map[deviceKey]*device{}, known: map[uint64]struct{}{}, several: map[uint64]int{}, told: map[uint64]struct{}{},
		}
	}
	return t
}

// table returns the table of a device, and the device's hash.
func (t *devices) table(key deviceKey) (*deviceTable, uint64) {
	hash := maphash.Comparable(t.seed, key)
	return &t.tables[hash%deviceTables], hash
}

// add notes that one more mailbox points to a device. The caller holds t.mu.
func (t *deviceTable) add(hash uint64) {
	if _, known := t.known[hash]; known {
		t.several[hash] = max(t.several[hash], 1) + 1
		return
	}
	t.known[hash] = struct{}{}
}

// remove notes that one mailbox less points to a device. The caller holds t.mu.
func (t *deviceTable) remove(hash uint64) {
	if n, several := t.several[hash]; several && n > 1 {
		t.several[hash] = n - 1
		return
	}
	delete(t.several, hash)
	delete(t.known, hash)
}

// ref notes a device that a compact mailbox points to.
func (t *devices) ref(key deviceKey) {
	table, hash := t.table(key)
	table.mu.Lock()
	defer table.mu.Unlock()
	table.add(hash)
}

// unref notes that a compact mailbox does not point to a device any more.
func (t *devices) unref(key deviceKey) {
	table, hash := t.table(key)
	table.mu.Lock()
	defer table.mu.Unlock()
	table.remove(hash)
}

// attach gives a new target its device, which shared says is on other mailboxes too.
func (t *devices) attach(l *target, key deviceKey, shared bool) {
	table, hash := t.table(key)
	table.mu.Lock()
	defer table.mu.Unlock()
	table.add(hash)
	d := table.attachTarget(l, key)
	if shared || table.several[hash] > 1 || table.calledShared(hash) {
		d.share(l.mailbox.key.Organization)
	}
}

// withShared calls fn with a device that the registry calls shared, which no mailbox in
// memory needs to point to. fn has it exchanged, unless that is under way; it is called
// under the device's lock.
func (t *devices) withShared(key deviceKey, fn func(d *device)) {
	table, _ := t.table(key)
	table.mu.Lock()
	defer table.mu.Unlock()
	d := table.active[key]
	if d == nil {
		d = &device{app: key.app, token: key.token}
		d.targets = d.first[:0]
		table.wake(key, d)
	}
	d.beginSharing()
	fn(d)
}

// shareIfActive has a device that is active show a sum.
func (t *devices) shareIfActive(key deviceKey) {
	table, _ := t.table(key)
	table.mu.Lock()
	defer table.mu.Unlock()
	if d := table.active[key]; d != nil {
		d.share(0)
	}
}

// noteShared notes that the registry calls a device shared.
func (t *devices) noteShared(key deviceKey) {
	table, hash := t.table(key)
	table.mu.Lock()
	defer table.mu.Unlock()
	if !table.calledShared(hash) {
		table.told[hash] = struct{}{}
		t.shared.Add(1)
	}
}

// unshare takes a device back that the registry does not call shared any more, and
// returns the targets whose counts have to be set anew. It does not where something
// has happened since the registry was asked: that is asked next.
func (t *devices) unshare(d *device) (targets []*target, done bool) {
	table, hash := t.table(deviceKey{d.app, d.token})
	table.mu.Lock()
	defer table.mu.Unlock()
	if d.shared != nil {
		if d.shared.exchanging = false; d.shared.dirty {
			return nil, false
		}
		targets = d.unshare()
	}
	if table.calledShared(hash) {
		delete(table.told, hash)
		t.shared.Add(-1)
	}
	if table.several[hash] == 1 {
		delete(table.several, hash)
	}
	return targets, true
}

// calledShared reports whether the registry calls a device shared. The caller
// holds t.mu.
func (t *deviceTable) calledShared(hash uint64) bool {
	_, told := t.told[hash]
	return told
}

// wake adds a device to those active. The caller holds t.mu.
func (t *deviceTable) wake(key deviceKey, d *device) {
	d.mu = &t.mu
	t.active[key] = d
	t.most = max(t.most, len(t.active))
}

// attachTarget gives a target its device, which it makes if it is not active. The caller
// holds t.mu.
func (t *deviceTable) attachTarget(l *target, key deviceKey) *device {
	d := t.active[key]
	if d == nil {
		d = l.newDevice(key)
		t.wake(key, d)
	}
	d.targets = append(d.targets, l)
	l.device = d
	return d
}

// activate gives a target its device as it was compacted.
func (t *devices) activate(l *target, compacted *compactDevice, r *Relay) {
	table, hash := t.table(compacted.key)
	table.mu.Lock()
	defer table.mu.Unlock()
	d := table.attachTarget(l, compacted.key)
	_, several := table.several[hash]
	if several || table.calledShared(hash) {
		d.share(l.mailbox.key.Organization)
	}
	if q := compacted.quarantine; q != nil { // it is in the tally
		l.quarantine = &targetQuarantine{q, r.trialAt(q)}
	}
	l.accepted, l.acceptedAt = compacted.shown, compacted.shownAt
	if d.shared != nil || compacted.part {
		return
	}
	d.shown, d.shownAt, d.shownBy = compacted.shown, compacted.shownAt, l.mailbox.key.Organization
	d.takenAt = max(d.takenAt, compacted.shownAt)
}

// compact takes a target's device out, if it is idle and nobody else's, and returns
// what is to be kept of it.
func (t *devices) compact(l *target, now int64) (compacted compactDevice, ok bool) {
	d := l.device
	compacted.key, compacted.registeredAt = deviceKey{d.app, d.token}, l.registeredAt
	table, hash := t.table(compacted.key)
	table.mu.Lock()
	defer table.mu.Unlock()
	if l.refused || !d.idleLong(now) {
		return compacted, false
	}
	if d.shared == nil && (len(d.targets) > 1 || table.several[hash] > 1) {
		return compacted, false
	}
	if l.quarantine != nil {
		compacted.quarantine = l.quarantine.Quarantine
	}
	if d.shared != nil {
		d.shared.forget(l)
		d.targets = slices.DeleteFunc(d.targets, func(other *target) bool { return other == l })
	}
	if d.shared == nil || len(d.targets) == 0 {
		delete(table.active, compacted.key)
		d.gone = true
	}
	compacted.shown, compacted.shownAt, compacted.part = l.accepted, l.acceptedAt, true
	if d.shared != nil {
		return compacted, true // what it shows is a sum
	}
	delete(table.several, hash)
	if d.shownBy == l.mailbox.key.Organization && d.shownAt != 0 {
		compacted.shown, compacted.shownAt, compacted.part = d.shown, d.shownAt, false
	}
	return compacted, true
}

// idleLong reports whether nothing is going on with the device, and nothing keeps
// the next push from it. The caller holds d.mu.
func (d *device) idleLong(now int64) bool {
	return d.stage == stageIdle && !d.wanted() && !d.shared.exchangePending() && d.setback.Over() <= now
}

// isIdle is idleLong for a caller that does not hold the device's lock.
func (d *device) isIdle(now int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.idleLong(now)
}

// release takes a target off its device, and drops a device that nobody needs.
func (t *devices) release(l *target, r *Relay) {
	d := l.device
	table, hash := t.table(deviceKey{d.app, d.token})
	table.mu.Lock()
	defer table.mu.Unlock()
	l.setQuarantine(nil, r)
	d.targets = slices.DeleteFunc(d.targets, func(other *target) bool { return other == l })
	if d.desired == l {
		d.desired = nil
	}
	if d.shared != nil {
		d.shared.forget(l)
		d.touch(l.mailbox.key.Organization) // the sum falls by its part
	}
	table.remove(hash)
	table.drop(d, r)
}

// drop is deviceTable.drop for a caller that holds no lock of a device.
func (t *devices) drop(d *device, r *Relay) {
	table, _ := t.table(deviceKey{d.app, d.token})
	table.mu.Lock()
	defer table.mu.Unlock()
	table.drop(d, r)
}

// drop removes a device without targets that is not on its way; one that is gets
// dropped when it comes back. What APNs asked to wait for holds for the mailbox
// as well that the device comes to next: until then it is kept. The caller holds
// t.mu.
func (t *deviceTable) drop(d *device, r *Relay) {
	if len(d.targets) > 0 || d.stage != stageIdle || d.gone || d.shared.exchangePending() {
		return
	}
	if at := d.setback.Over(); at > r.now() {
		d.stage = stageWaiting
		r.waits.Set(d, at)
		return
	}
	d.gone = true
	delete(t.active, deviceKey{d.app, d.token})
}

// shrink leaves the memory of devices that were compacted to the collector, and returns
// how many these are.
func (t *devices) shrink() (gone int) {
	for i := range t.tables {
		table := &t.tables[i]
		table.mu.Lock()
		if left := len(table.active); worthShrinking(left, table.most) {
			gone += table.most - left
			table.active, table.most = shrunk(table.active), left
		}
		table.mu.Unlock()
	}
	return gone
}

// worthACollection is how many devices' memory is worth the time of a collection.
const worthACollection = 10_000

// giveBack returns memory to the system after something that took or left much
// of it, for this many devices. By itself Go keeps twice of what is in use.
func giveBack(devices int) {
	if devices >= worthACollection {
		debug.FreeOSMemory()
	}
}

// count returns how many devices are known.
func (t *devices) count() int {
	n := 0
	for i := range t.tables {
		t.tables[i].mu.Lock()
		n += len(t.tables[i].known)
		t.tables[i].mu.Unlock()
	}
	return n
}
