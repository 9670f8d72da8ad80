package relay

import (
	"encoding/binary"
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

// deviceTables is how many tables share the devices: as many as a byte tells, well
// above the number of cores.
const deviceTables = 1 << 8

// devices knows which devices there are: those of mailboxes that are active one
// by one, the others by the hash of their key.
type devices struct {
	seed        maphash.Seed
	tables      [deviceTables]deviceTable
	sharedCount atomic.Int64 // how many the registry calls shared
}

// deviceTable is a part of devices. Its mutex guards all of it, and its devices.
type deviceTable struct {
	mu     sync.Mutex
	active map[deviceKey]*device
	most   int // how many were active at once since the last shrink

	// known holds every device that a mailbox points to, active or
	// compact. several counts the mailboxes of those that several pointed to: the
	// device is shared, or is on its way from one mailbox to another. What a
	// compact mailbox believes of such a device may be wrong, so several keeps
	// the device until its one mailbox left, active, knows better.
	known   map[deviceHash]struct{}
	several map[deviceHash]int

	// sharedHashes are of those that the registry calls shared.
	sharedHashes map[deviceHash]struct{}
}

// deviceHash stands for a device in its table: the hash of its key without the byte
// that tells the table. A set of integers of eight bytes takes twice the memory,
// because Go's maps keep room for a value that has no size.
type deviceHash [7]byte

func newDevices() *devices {
	t := &devices{seed: maphash.MakeSeed()}
	for i := range t.tables {
		t.tables[i] = deviceTable{
			active: map[deviceKey]*device{}, known: map[deviceHash]struct{}{}, several: map[deviceHash]int{}, sharedHashes: map[deviceHash]struct{}{},
		}
	}
	return t
}

// table returns the table of a device, and the device's hash.
func (ds *devices) table(key deviceKey) (*deviceTable, deviceHash) {
	var hash [8]byte
	binary.LittleEndian.PutUint64(hash[:], maphash.Comparable(ds.seed, key))
	return &ds.tables[hash[0]], deviceHash(hash[1:])
}

// add notes that one more mailbox points to a device. The caller holds t.mu.
func (dt *deviceTable) add(hash deviceHash) {
	if _, known := dt.known[hash]; known {
		dt.several[hash] = max(dt.several[hash], 1) + 1
		return
	}
	dt.known[hash] = struct{}{}
}

// remove notes that one mailbox less points to a device. The caller holds t.mu.
func (dt *deviceTable) remove(hash deviceHash) {
	if n, several := dt.several[hash]; several && n > 1 {
		dt.several[hash] = n - 1
		return
	}
	delete(dt.several, hash)
	delete(dt.known, hash)
}

// ref notes a device that a compact mailbox points to.
func (ds *devices) ref(key deviceKey) {
	table, hash := ds.table(key)
	table.mu.Lock()
	defer table.mu.Unlock()
	table.add(hash)
}

// unref notes that a compact mailbox does not point to a device any more.
func (ds *devices) unref(key deviceKey) {
	table, hash := ds.table(key)
	table.mu.Lock()
	defer table.mu.Unlock()
	table.remove(hash)
}

// attach gives a new target its device, which shared says is on other mailboxes too.
func (ds *devices) attach(t *target, key deviceKey, shared bool) {
	table, hash := ds.table(key)
	table.mu.Lock()
	defer table.mu.Unlock()
	table.add(hash)
	d := table.attachTarget(t, key)
	if shared || table.several[hash] > 1 || table.calledShared(hash) {
		d.share(t.mailbox.key.Organization)
	}
}

// withShared calls fn with a device that the registry calls shared, which no mailbox in
// memory needs to point to. fn has it exchanged, unless that is under way; it is called
// under the device's lock.
func (ds *devices) withShared(key deviceKey, fn func(d *device)) {
	table, _ := ds.table(key)
	table.mu.Lock()
	defer table.mu.Unlock()
	d := table.active[key]
	if d == nil {
		d = &device{app: key.app, token: key.token}
		d.targets = d.first[:0]
		table.addActive(key, d)
	}
	d.beginSharing()
	fn(d)
}

// shareIfActive has a device that is active show a sum.
func (ds *devices) shareIfActive(key deviceKey) {
	table, _ := ds.table(key)
	table.mu.Lock()
	defer table.mu.Unlock()
	if d := table.active[key]; d != nil {
		d.share(0)
	}
}

// noteShared notes that the registry calls a device shared.
func (ds *devices) noteShared(key deviceKey) {
	table, hash := ds.table(key)
	table.mu.Lock()
	defer table.mu.Unlock()
	if !table.calledShared(hash) {
		table.sharedHashes[hash] = struct{}{}
		ds.sharedCount.Add(1)
	}
}

// noteUnshared notes that the registry does not call a device shared any more, and
// returns the targets whose counts have to be set anew. It does not where something
// has happened since the registry was asked: that is asked next.
func (ds *devices) noteUnshared(d *device) (targets []*target, done bool) {
	table, hash := ds.table(deviceKey{d.app, d.token})
	table.mu.Lock()
	defer table.mu.Unlock()
	if d.shared != nil {
		if d.shared.exchanging = false; d.shared.dirty {
			return nil, false
		}
		targets = d.unshare()
	}
	if table.calledShared(hash) {
		delete(table.sharedHashes, hash)
		ds.sharedCount.Add(-1)
	}
	if table.several[hash] == 1 {
		delete(table.several, hash)
	}
	return targets, true
}

// calledShared reports whether the registry calls a device shared. The caller
// holds t.mu.
func (dt *deviceTable) calledShared(hash deviceHash) bool {
	_, shared := dt.sharedHashes[hash]
	return shared
}

// addActive adds a device to those active. The caller holds t.mu.
func (dt *deviceTable) addActive(key deviceKey, d *device) {
	d.mu = &dt.mu
	dt.active[key] = d
	dt.most = max(dt.most, len(dt.active))
}

// attachTarget gives a target its device, which it makes if it is not active. The caller
// holds t.mu.
func (dt *deviceTable) attachTarget(t *target, key deviceKey) *device {
	d := dt.active[key]
	if d == nil {
		d = t.newDevice(key)
		dt.addActive(key, d)
	}
	d.targets = append(d.targets, t)
	t.device = d
	return d
}

// activate gives a target its device as it was compacted.
func (ds *devices) activate(t *target, compacted *compactDevice, r *Relay) {
	table, hash := ds.table(compacted.key)
	table.mu.Lock()
	defer table.mu.Unlock()
	d := table.attachTarget(t, compacted.key)
	_, several := table.several[hash]
	if several || table.calledShared(hash) {
		d.share(t.mailbox.key.Organization)
	}
	if q := compacted.quarantine; q != nil { // it is counted
		t.quarantine = &targetQuarantine{q, r.probeAt(q)}
	}
	t.acceptedCount, t.acceptedAt = compacted.shown, compacted.shownAt
	d.takenAt = max(d.takenAt, compacted.shownAt)
	if d.shared != nil || compacted.part {
		return
	}
	d.shown, d.shownAt, d.shownBy = compacted.shown, compacted.shownAt, t.mailbox.key.Organization
}

// compact takes a target's device out, if it is idle and nobody else's, and returns
// what is to be kept of it.
func (ds *devices) compact(t *target, now int64) (compacted compactDevice, ok bool) {
	d := t.device
	compacted.key, compacted.registeredAt = deviceKey{d.app, d.token}, t.registeredAt
	table, hash := ds.table(compacted.key)
	table.mu.Lock()
	defer table.mu.Unlock()
	if t.refused || !d.idle(now) {
		return compacted, false
	}
	if d.shared == nil && (len(d.targets) > 1 || table.several[hash] > 1) {
		return compacted, false
	}
	if t.quarantine != nil {
		compacted.quarantine = t.quarantine.Quarantine
	}
	if d.shared != nil {
		d.shared.forget(t)
		d.targets = slices.DeleteFunc(d.targets, func(other *target) bool { return other == t })
	}
	if d.shared == nil || len(d.targets) == 0 {
		delete(table.active, compacted.key)
		d.gone = true
	}
	compacted.shown, compacted.shownAt, compacted.part = t.acceptedCount, t.acceptedAt, true
	if d.shared != nil {
		return compacted, true // what it shows is a sum
	}
	delete(table.several, hash)
	if d.shownBy == t.mailbox.key.Organization && d.shownAt != 0 {
		compacted.shown, compacted.shownAt, compacted.part = d.shown, d.shownAt, false
	}
	return compacted, true
}

// idle reports whether nothing is going on with the device, and nothing keeps
// the next push from it. The caller holds d.mu.
func (d *device) idle(now int64) bool {
	return d.stage == stageIdle && !d.wanted() && !d.shared.exchangePending() && d.setback.Over() <= now
}

// isIdle is idle for a caller that does not hold the device's lock.
func (d *device) isIdle(now int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.idle(now)
}

// release takes a target off its device, and drops a device that nobody needs.
func (ds *devices) release(t *target, r *Relay) {
	d := t.device
	table, hash := ds.table(deviceKey{d.app, d.token})
	table.mu.Lock()
	defer table.mu.Unlock()
	t.setQuarantine(nil, r)
	d.targets = slices.DeleteFunc(d.targets, func(other *target) bool { return other == t })
	if d.desired == t {
		d.desired = nil
	}
	if d.shared != nil {
		d.shared.forget(t)
		d.touch(t.mailbox.key.Organization) // the sum falls by its part
	}
	table.remove(hash)
	table.drop(d, r)
}

// drop is deviceTable.drop for a caller that holds no lock of a device.
func (ds *devices) drop(d *device, r *Relay) {
	table, _ := ds.table(deviceKey{d.app, d.token})
	table.mu.Lock()
	defer table.mu.Unlock()
	table.drop(d, r)
}

// drop removes a device without targets that is not on its way; one that is gets
// dropped when it comes back. What APNs asked to wait for holds for the mailbox
// as well that the device comes to next: until then it is kept. The caller holds
// t.mu.
func (dt *deviceTable) drop(d *device, r *Relay) {
	if len(d.targets) > 0 || d.stage != stageIdle || d.gone || d.shared.exchangePending() {
		return
	}
	if at := d.setback.Over(); at > r.now() {
		d.stage = stageWaiting
		r.waits.Set(d, at)
		return
	}
	d.gone = true
	delete(dt.active, deviceKey{d.app, d.token})
}

// shrink leaves the memory of devices that were compacted to the collector, and returns
// how many these are.
func (ds *devices) shrink() (gone int) {
	for i := range ds.tables {
		table := &ds.tables[i]
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
func (ds *devices) count() int {
	n := 0
	for i := range ds.tables {
		ds.tables[i].mu.Lock()
		n += len(ds.tables[i].known)
		ds.tables[i].mu.Unlock()
	}
	return n
}
