package apnstest

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"badgerelay/apns"
)

// Meta is what a page shows about a device. The protocol does not see it.
type Meta struct {
	Name    string `json:"name,omitempty"`
	Mailbox string `json:"mailbox,omitempty"`
	Model   string `json:"model,omitempty"` // "iPhone" or "iPad"
}

// Device is the state of one device at one moment. It is a copy.
type Device struct {
	Token       apns.DeviceToken
	Topic       string // bundle id, without a push type's suffix
	Environment Environment
	Meta        Meta

	Badge          uint32    // the count shown; 0: no badge
	Online         bool      // false: pushes wait, the newest only
	Waiting        bool      // a push is stored for when it is on line again
	RegisteredAt   time.Time // the last registration
	UnregisteredAt time.Time // zero: registered
	ExpiredAt      time.Time // zero: the token has not expired
	Accepted       uint64    // pushes answered 200
	Shown          uint64    // pushes that reached the screen
	PushedAt       time.Time // the last one that reached the screen
	Removed        bool      // with Watch: the device is gone from the model
	Version        uint64    // grows with each change of this device
}

// device is a Device with what the protocol keeps beside it.
// Its shard's mutex guards all of it, save token, which never changes.
type device struct {
	Device
	goneAfter time.Time // 410 from then on; never before UnregisteredAt
	clients   map[string]*deviceClient
	stored    *notification
	held      *notification // shown after the next one: ReorderRate
	inFlight  int           // of all clients
	window    int64         // the second that count counts
	count     int
}

// deviceClient is what one client did with a device; without Config.BySource all
// are one.
type deviceClient struct {
	deadAt   time.Time // when a final refusal was first answered; zero: never
	inFlight int
}

// client returns the client's part. The shard's lock must be held.
func (d *device) client(name string) *deviceClient {
	c := d.clients[name]
	if c == nil {
		if d.clients == nil {
			d.clients = map[string]*deviceClient{}
		}
		c = &deviceClient{}
		d.clients[name] = c
	}
	return c
}

// notification is an accepted push on its way to the screen.
type notification struct {
	badge   int64 // -1: the payload carries none
	expires int64 // Unix seconds; 0: not stored; -1: no limit given
}

// shardCount spreads the devices over locks; a power of two well above the
// number of connections one machine runs.
const shardCount = 64

type deviceShard struct {
	mu       sync.Mutex
	m        map[string]*device // by the token's bytes
	lastPush time.Time          // the last one that reached a screen
}

// sawPush keeps when a push reached d's screen last. mu must be held.
func (sh *deviceShard) sawPush(d *device) {
	if d.PushedAt.After(sh.lastPush) {
		sh.lastPush = d.PushedAt
	}
}

// deviceModel is every device. Safe for concurrent use.
type deviceModel struct {
	seed     maphash.Seed
	shards   [shardCount]deviceShard
	watching atomic.Int32 // number of watchers: spares the copies when 0
	watchMu  sync.RWMutex
	watchers map[int]func(Device)
	nextID   int
}

func newDeviceModel() *deviceModel {
	m := &deviceModel{seed: maphash.MakeSeed(), watchers: map[int]func(Device){}}
	for i := range m.shards {
		m.shards[i].m = map[string]*device{}
	}
	return m
}

func (m *deviceModel) shard(raw []byte) *deviceShard {
	return &m.shards[maphash.Bytes(m.seed, raw)%shardCount]
}

// update runs f on the device under its lock, and tells the watchers if f
// reports a change. It reports whether the device exists.
func (m *deviceModel) update(token apns.DeviceToken, f func(*device) bool) bool {
	raw := token.AppendRaw(make([]byte, 0, apns.MaxDeviceTokenSize))
	sh := m.shard(raw)
	sh.mu.Lock()
	d, ok := sh.m[string(raw)]
	changed := ok && f(d)
	var now Device
	if changed {
		d.Version++
		now = d.Device
		sh.sawPush(d)
	}
	sh.mu.Unlock()
	if changed {
		m.tell(now)
	}
	return ok
}

// tell calls the watchers. No lock of a shard may be held.
func (m *deviceModel) tell(d Device) {
	if m.watching.Load() == 0 {
		return
	}
	m.watchMu.RLock()
	watchers := make([]func(Device), 0, len(m.watchers))
	for _, w := range m.watchers {
		watchers = append(watchers, w)
	}
	m.watchMu.RUnlock()
	for _, w := range watchers {
		w(d)
	}
}

// RegisterDevice adds a device, or registers it again: it is then registered
// now, on line, and of this topic and environment. The badge shown stays.
// An empty meta leaves the device's own.
func (s *Simulator) RegisterDevice(token apns.DeviceToken, topic string, env Environment, meta Meta) Device {
	raw := token.AppendRaw(make([]byte, 0, apns.MaxDeviceTokenSize))
	sh := s.devices.shard(raw)
	sh.mu.Lock()
	d, ok := sh.m[string(raw)]
	if !ok {
		d = &device{Device: Device{Token: token}}
		sh.m[string(raw)] = d
	}
	if meta != (Meta{}) {
		d.Meta = meta
	}
	d.Topic, d.Environment, d.Online = topic, env, true
	d.RegisteredAt, d.UnregisteredAt, d.ExpiredAt = time.Now(), time.Time{}, time.Time{}
	d.goneAfter, d.Removed = time.Time{}, false
	for _, c := range d.clients {
		c.deadAt = time.Time{}
	}
	d.Version++
	now := d.Device
	sh.mu.Unlock()
	s.unknown.forget(raw)
	if ok { // whoever signs a device in anew can't know what it was refused before
		s.serverErrors.forgetAll(raw)
	}
	s.devices.tell(now)
	return now
}

// Unregister makes APNs answer 410 Unregistered for the device, with at as
// the timestamp, once Config.UnregisterDelay has passed: the app was removed,
// or notifications were switched off. The badge is gone with the app.
// It reports whether the device exists.
func (s *Simulator) Unregister(token apns.DeviceToken, at time.Time) bool {
	return s.devices.update(token, func(d *device) bool {
		d.UnregisteredAt, d.goneAfter = at, at
		if s.cfg.UnregisterDelay > 0 {
			d.goneAfter = at.Add(s.randomDuration(s.cfg.UnregisterDelay))
		}
		d.Badge, d.stored, d.held, d.Waiting = 0, nil, nil, false
		return true
	})
}

// ExpireDevice makes APNs answer 410 ExpiredToken for the device from at on.
// It reports whether the device exists.
func (s *Simulator) ExpireDevice(token apns.DeviceToken, at time.Time) bool {
	return s.devices.update(token, func(d *device) bool {
		d.ExpiredAt = at
		return true
	})
}

// RemoveDevice takes the device out of the model: its token is then unknown.
// It reports whether the device existed.
func (s *Simulator) RemoveDevice(token apns.DeviceToken) bool {
	raw := token.AppendRaw(make([]byte, 0, apns.MaxDeviceTokenSize))
	sh := s.devices.shard(raw)
	sh.mu.Lock()
	d, ok := sh.m[string(raw)]
	delete(sh.m, string(raw))
	var now Device
	if ok {
		d.Removed = true
		d.Version++
		now = d.Device
	}
	sh.mu.Unlock()
	if ok {
		s.devices.tell(now)
	}
	return ok
}

// SetOnline switches the device's network on or off. A push stored meanwhile
// is shown when it comes back, unless it expired. It reports whether the
// device exists.
func (s *Simulator) SetOnline(token apns.DeviceToken, online bool) bool {
	return s.devices.update(token, func(d *device) bool {
		if d.Online == online {
			return false
		}
		d.Online = online
		if n := d.stored; online && n != nil {
			d.stored, d.Waiting = nil, false
			if n.expires < 0 || n.expires > time.Now().Unix() {
				d.show(n, time.Now())
			}
		}
		return true
	})
}

// SetBadge sets the badge as the app itself would. It reports whether the
// device exists.
func (s *Simulator) SetBadge(token apns.DeviceToken, badge uint32) bool {
	return s.devices.update(token, func(d *device) bool {
		d.Badge = badge
		return true
	})
}

// Device returns the state of one device, and whether it exists.
func (s *Simulator) Device(token apns.DeviceToken) (Device, bool) {
	var now Device
	ok := s.devices.update(token, func(d *device) bool {
		now = d.Device
		return false
	})
	return now, ok
}

// Devices returns every device, ordered by name, mailbox and token.
func (s *Simulator) Devices() []Device {
	var all []Device
	for i := range s.devices.shards {
		sh := &s.devices.shards[i]
		sh.mu.Lock()
		for _, d := range sh.m {
			all = append(all, d.Device)
		}
		sh.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b Device) int {
		if c := strings.Compare(a.Meta.Name, b.Meta.Name); c != 0 {
			return c
		}
		if c := strings.Compare(a.Meta.Mailbox, b.Meta.Mailbox); c != 0 {
			return c
		}
		return strings.Compare(a.Token.Hex(), b.Token.Hex())
	})
	return all
}

// DeviceCount returns the number of devices.
func (s *Simulator) DeviceCount() int {
	n := 0
	for i := range s.devices.shards {
		sh := &s.devices.shards[i]
		sh.mu.Lock()
		n += len(sh.m)
		sh.mu.Unlock()
	}
	return n
}

// LastPush returns when a push reached a screen last; zero: none did.
func (s *Simulator) LastPush() time.Time {
	var last time.Time
	for i := range s.devices.shards {
		sh := &s.devices.shards[i]
		sh.mu.Lock()
		if sh.lastPush.After(last) {
			last = sh.lastPush
		}
		sh.mu.Unlock()
	}
	return last
}

// Watch calls f after each change of a device, from the goroutine that made
// the change, until cancel is called. f must not block; it may call methods of
// the Simulator. Two changes of one device may arrive in either order:
// Device.Version tells which is newer.
func (s *Simulator) Watch(f func(Device)) (cancel func()) {
	m := s.devices
	m.watchMu.Lock()
	id := m.nextID
	m.nextID++
	m.watchers[id] = f
	m.watchMu.Unlock()
	m.watching.Add(1)
	return sync.OnceFunc(func() {
		m.watching.Add(-1)
		m.watchMu.Lock()
		delete(m.watchers, id)
		m.watchMu.Unlock()
	})
}
