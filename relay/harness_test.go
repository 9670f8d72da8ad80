package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
	"badgerelay/relay/lookup"
)

// harness runs a Relay in a synctest bubble with a registry in memory and a
// pool whose answers the test gives. Tests read as scripts: submit, want push,
// answer, want settled. Each step ends with a check of every invariant.
type harness struct {
	t        *testing.T
	relay    *Relay
	registry *memoryRegistry
	pool     *scriptedPool
	stop     func()
	sequence map[*Stream]uint64
}

const app = "com.example.mail"

// org is the organization of most tests.
const org OrganizationID = 1

// newHarnessOn runs a relay on a registry that another one may have used.
func newHarnessOn(t *testing.T, registry *memoryRegistry, change func(*Config)) *harness {
	t.Helper()
	h := &harness{t: t, registry: registry, relay: newRelay(t, registry, change), pool: newScriptedPool(), sequence: map[*Stream]uint64{}}
	h.pool.serve(h.relay, h.relay.Source(app))
	h.relay.SetGeneration(app, 1)
	h.run(h.pool.run)
	return h
}

// newSharing runs one of several relays that share a registry.
func newSharing(t *testing.T, registry *memoryRegistry, instance string) *harness {
	t.Helper()
	return newHarnessOn(t, registry, func(c *Config) { c.Window, c.MaxInFlight, c.Instance = -1, time.Minute, instance })
}

// newRelay makes a relay that serves app. The registry tells it of changes.
func newRelay(tb testing.TB, registry *memoryRegistry, change func(*Config)) *Relay {
	tb.Helper()
	c := Config{Subscriptions: registry, Apps: []string{app}}
	if change != nil {
		change(&c)
	}
	r, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	registry.tellToo(r)
	return r
}

// run runs the relay, and its pool, until stop.
func (h *harness) run(pool func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(h.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.relay.Run(ctx) }) // never fails
	wg.Go(func() { pool(ctx) })
	h.stop = func() { cancel(); wg.Wait() }
}

// bubble runs a test in fake time.
func bubble(t *testing.T, change func(*Config), f func(h *harness)) {
	t.Helper()
	bubbleOn(t, newMemoryRegistry(), change, f)
}

// bubbleOn runs a test in fake time on a registry that outlives it.
func bubbleOn(t *testing.T, registry *memoryRegistry, change func(*Config), f func(h *harness)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHarnessOn(t, registry, change)
		defer registry.tellNobody()
		defer h.stop()
		synctest.Wait() // the warm-up reads what is there before the test begins
		f(h)
		h.check()
	})
}

// alone is for tests in which days pass: a relay that shares its registry looks
// several times a second whether it was stopped.
func alone(c *Config) { c.Alone = true }

// phone makes a device token from a number.
func phone(n int) apns.DeviceToken {
	d, err := apns.ParseDeviceToken(fmt.Sprintf("01%062x", n))
	if err != nil {
		panic(err)
	}
	return d
}

// submit sends events on a stream and waits until nothing moves.
func (h *harness) submit(s *Stream, events ...Event) {
	h.t.Helper()
	if err := s.Submit(h.t.Context(), h.sequence[s]+1, events); err != nil {
		h.t.Fatalf("submit: %v", err)
	}
	h.sequence[s] += uint64(len(events))
	synctest.Wait()
	h.check()
}

// count is an event without a version.
func count(mailbox string, n uint32) Event { return Event{Mailbox: mailbox, Unread: n} }

// after lets time pass.
func (h *harness) after(d time.Duration) {
	h.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	h.check()
}

// wantPushes takes what the pool was given since the last call.
func (h *harness) wantPushes(why string, want ...string) []apns.Request {
	h.t.Helper()
	synctest.Wait()
	got := h.pool.taken()
	names := make([]string, len(got))
	for i, req := range got {
		names[i] = fmt.Sprintf("%x=%d", req.Device.AppendRaw(nil)[31], req.Badge)
	}
	if !slices.Equal(names, want) {
		h.t.Fatalf("pushes are %v, want %v: %s", names, want, why)
	}
	return got
}

// answer gives APNs' answer to pushes; nil accepts.
func (h *harness) answer(err *apns.Error, pushes ...apns.Request) {
	h.t.Helper()
	h.pool.answer(err, pushes)
	synctest.Wait()
	h.check()
}

// accept expects pushes and accepts them.
func (h *harness) accept(why string, want ...string) {
	h.t.Helper()
	h.answer(nil, h.wantPushes(why, want...)...)
}

// wantSettled expects what the stream's reader is told, as
// "through N, ranges, outcomes".
func (h *harness) wantSettled(s *Stream, want string) Settlement {
	h.t.Helper()
	synctest.Wait()
	ctx, cancel := context.WithCancel(h.t.Context())
	cancel() // what has not settled by now is not expected
	got, err := s.Next(ctx)
	text := "nothing"
	if err == nil {
		text = fmt.Sprint("through ", got.Through)
		for _, g := range got.Ranges {
			text += fmt.Sprintf(", %d-%d", g.First, g.Last)
		}
		for _, o := range got.Outcomes {
			text += fmt.Sprintf(", %d %v", o.Sequence, o.Outcome)
		}
	}
	if text != want {
		h.t.Fatalf("settled %q, want %q", text, want)
	}
	return got
}

// check verifies that the ledger balances and every structure holds together.
func (h *harness) check() {
	h.t.Helper()
	synctest.Wait() // checkDevices looks at what no step may be changing
	CheckLedger(h.t, h.relay)
	checkDevices(h.t, h.relay)
	if n := h.pool.doubled(); n > 0 {
		h.t.Fatalf("%d devices had two pushes in flight", n)
	}
}

// CheckLedger fails the test unless accepted events are all accounted for and
// the relay's structures agree with each other.
func CheckLedger(t testing.TB, r *Relay) {
	t.Helper()
	l := r.Ledger()
	sum := l.Pending
	for _, n := range l.Outcomes {
		sum += n
	}
	if sum != l.Accepted {
		t.Fatalf("ledger: accepted %d, accounted for %d", l.Accepted, sum)
	}
	var pending uint64
	for i := range r.shards {
		pending += r.shards[i].check(t, r)
	}
	if pending != l.Pending {
		t.Fatalf("ledger: pending %d, mailboxes hold %d", l.Pending, pending)
	}
}

// check verifies a shard and returns how many of its mailboxes have a pending
// event.
func (sh *shard) check(t testing.TB, r *Relay) (pending uint64) {
	t.Helper()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for m := range sh.active.all() {
		key := m.key
		if m.pending {
			pending++
		}
		outstanding := int32(0)
		for _, target := range m.targets {
			if target.outstanding {
				outstanding++
			}
			if target.mailbox != m || target.device == nil {
				t.Fatalf("mailbox %v: a target is not its own", key)
			}
		}
		if outstanding != m.outstanding {
			t.Fatalf("mailbox %v: outstanding %d, its targets say %d", key, m.outstanding, outstanding)
		}
		if m.held && !m.windowOpen && m.subs == lookup.Known {
			t.Fatalf("mailbox %v: held without a window", key)
		}
		if m.stream != nil && !m.pending {
			t.Fatalf("mailbox %v: a stream waits for an event that is settled", key)
		}
	}
	for hash, e := range sh.compact.all() {
		if sh.active.find(hash, e.key()) != nil {
			t.Fatalf("mailbox %v is active and compact", e.key())
		}
		if _, own := r.shardOf(e.key().Organization, e.key().Mailbox); own != hash {
			t.Fatalf("mailbox %v is compact under another's hash", e.key())
		}
	}
	return pending
}

// checkDevices verifies that what the mailboxes point to is what the tables
// of devices count.
func checkDevices(t testing.TB, r *Relay) {
	t.Helper()
	want := map[deviceKey]int{}
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		for m := range sh.active.all() {
			for _, target := range m.targets {
				want[deviceKey{target.device.app, target.device.token}]++
			}
		}
		for _, e := range sh.compact.all() {
			reader := mailboxDecoder{left: e}
			reader.key()
			reader.order()
			for d, ok := reader.device(r.apps.all()); ok; d, ok = reader.device(r.apps.all()) {
				want[d.key]++
			}
		}
		sh.mu.Unlock()
	}
	for key, n := range want {
		table, hash := r.devices.table(key)
		table.mu.Lock()
		_, known := table.known[hash]
		shared := table.several[hash]
		table.mu.Unlock()
		if !known || n > 1 && shared != n {
			t.Fatalf("%d mailboxes point to a device, known: %v, shared by %d", n, known, shared)
		}
	}
	if got := r.devices.count(); got != len(want) {
		t.Fatalf("%d devices are known, mailboxes point to %d", got, len(want))
	}
	for i := range r.devices.tables {
		table := &r.devices.tables[i]
		table.mu.Lock()
		for _, d := range table.active {
			if len(d.targets) == 0 && d.stage == stageIdle && !d.shared.exchangePending() {
				t.Error("a device is active that nobody points to")
			}
		}
		table.mu.Unlock()
	}
}

// scriptedPool is the pool's side of an apns.Source: it takes what there is
// room for and answers when the test says so.
type scriptedPool struct {
	source apns.Source
	woken  signal

	mu       sync.Mutex
	room     int
	fresh    []apns.Request
	inFlight map[apns.DeviceToken]int
	written  map[apns.DeviceToken]time.Time // when the last push was
	twice    int
}

func newScriptedPool() *scriptedPool {
	return &scriptedPool{
		room: 1000, woken: newSignal(),
		inFlight: map[apns.DeviceToken]int{}, written: map[apns.DeviceToken]time.Time{},
	}
}

// serve has the pool take what a relay's app has to push.
func (p *scriptedPool) serve(r *Relay, source apns.Source) {
	p.source = source
	r.SetWake(app, func() { p.woken.fill() })
	p.woken.fill() // what queued before nobody told: a connection that opens looks
}

func (p *scriptedPool) run(ctx context.Context) {
	for {
		select {
		case <-p.woken:
			p.draw()
		case <-ctx.Done():
			return
		}
	}
}

func (p *scriptedPool) draw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.room <= 0 {
		return
	}
	dst := make([]apns.Request, p.room)
	n, _ := p.source.Take(dst)
	p.room -= n
	p.fresh = append(p.fresh, dst[:n]...)
	for _, req := range dst[:n] {
		p.written[req.Device] = time.Now()
		if p.inFlight[req.Device]++; p.inFlight[req.Device] > 1 {
			p.twice++
		}
	}
}

func (p *scriptedPool) taken() []apns.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh := p.fresh
	p.fresh = nil
	return fresh
}

func (p *scriptedPool) doubled() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.twice
}

func (p *scriptedPool) setRoom(n int) {
	p.mu.Lock()
	p.room = n
	p.mu.Unlock()
	p.woken.fill()
}

func (p *scriptedPool) answer(err *apns.Error, pushes []apns.Request) {
	results := make([]apns.Result, len(pushes))
	p.mu.Lock()
	for i, req := range pushes {
		results[i] = apns.Result{Tag: req.Tag, Err: err, WrittenAt: p.written[req.Device]}
		p.inFlight[req.Device]--
	}
	p.room += len(pushes)
	p.mu.Unlock()
	p.source.Done(results)
	p.woken.fill()
}

// memoryRegistry is a registry in memory that keeps the rules that the relay
// relies on.
type memoryRegistry struct {
	mu               sync.Mutex
	subs             map[MailboxKey][]Subscription
	removed          []Refusal
	budget           Budget
	accepted         map[Generation]int
	slow             time.Duration // from a change by Refuse to its answer
	fails            bool
	apart            bool       // exchanges fail
	apartFrom        string     // exchanges of this relay fail
	sharedUnreadable bool       // which devices are shared can't be read
	broken           MailboxKey // look-ups of it fail
	lookups          int
	exchanges        int
	asked            func(x *ExchangeRequest, result *ExchangeResult) // called with each exchange, before its answer is given
	scanned          func()                                           // called by Scan between reading and giving what it read
	changed          func([]MailboxKey)
	shares           func([]DeviceKey)
	shared           map[DeviceKey]*SharedDevice
	disabled         map[OrganizationID]bool
	silent           map[string]bool // relays that have not been heard of for long
	left             map[string]bool // relays that said that they push no more
	ahead            time.Duration   // of its clock
}

// setClock has the registry's clock be that far ahead.
func (m *memoryRegistry) setClock(ahead time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ahead = ahead
}

// tellToo has another relay told of changes.
func (m *memoryRegistry) tellToo(r *Relay) {
	changed, shares := m.changed, m.shares
	m.changed = func(keys []MailboxKey) { changed(keys); r.SubscriptionsChanged(keys) }
	m.shares = func(keys []DeviceKey) { shares(keys); r.DevicesShared(keys) }
}

// tellNobody forgets the relays that are told of changes.
func (m *memoryRegistry) tellNobody() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed, m.shares = func([]MailboxKey) {}, func([]DeviceKey) {}
}

var errRegistryGone = errors.New("registry is gone")

func newMemoryRegistry() *memoryRegistry {
	m := &memoryRegistry{
		subs: map[MailboxKey][]Subscription{}, accepted: map[Generation]int{},
		shared: map[DeviceKey]*SharedDevice{}, disabled: map[OrganizationID]bool{}, silent: map[string]bool{}, left: map[string]bool{},
	}
	m.tellNobody()
	return m
}

// subscribeToo puts a device on a mailbox and leaves it on the others.
func (m *memoryRegistry) subscribeToo(o OrganizationID, mailbox string, d apns.DeviceToken) {
	m.mu.Lock()
	key := MailboxKey{o, mailbox}
	m.subs[key] = slices.DeleteFunc(slices.Clone(m.subs[key]), func(s Subscription) bool { return s.Device == d })
	m.subs[key] = append(m.subs[key], Subscription{App: app, Device: d, RegisteredAt: time.Now()})
	several := len(m.live(DeviceKey{app, d})) > 1
	m.mu.Unlock()
	m.changed([]MailboxKey{key})
	if several {
		m.shares([]DeviceKey{{app, d}})
	}
}

// subscribeUnheard tells no relay of it.
func (m *memoryRegistry) subscribeUnheard(key MailboxKey, d apns.DeviceToken) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.subs[key] = append(m.subs[key], Subscription{App: app, Device: d, RegisteredAt: time.Now()})
}

// add is subscribeToo by an organization that knows of no other mailbox of the device.
func (m *memoryRegistry) add(o OrganizationID, mailbox string, d apns.DeviceToken) {
	m.mu.Lock()
	key := MailboxKey{o, mailbox}
	m.subs[key] = append(m.subs[key], Subscription{App: app, Device: d, RegisteredAt: time.Now()})
	m.mu.Unlock()
	m.changed([]MailboxKey{key})
}

func (m *memoryRegistry) disable(o OrganizationID, disabled bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disabled[o] = disabled
	for _, d := range m.shared {
		for i := range d.Parts {
			if d.Parts[i].Key.Organization == o {
				d.Sequence++
			}
		}
	}
}

// subscribers returns how many devices are on an organization's mailbox a.
func (m *memoryRegistry) subscribers(o OrganizationID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.subs[MailboxKey{o, "a"}])
}

func (m *memoryRegistry) exchanged() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exchanges
}

// live returns the subscriptions of a device.
func (m *memoryRegistry) live(d DeviceKey) (live []LivePart) {
	for key, subs := range m.subs {
		for _, s := range subs {
			if s.App == d.App && s.Device == d.Device {
				live = append(live, LivePart{Key: key, Disabled: m.disabled[key.Organization], Quarantined: s.Quarantine != nil, CreatedAt: s.RegisteredAt, RegisteredAt: s.RegisteredAt})
			}
		}
	}
	return live
}

func (m *memoryRegistry) SharedDevices(_ context.Context, fn func([]DeviceKey) error) error {
	m.mu.Lock()
	fails, keys := m.fails || m.sharedUnreadable, slices.Collect(maps.Keys(m.shared))
	m.mu.Unlock()
	if fails {
		return errRegistryGone
	}
	return fn(keys)
}

func (m *memoryRegistry) Exchange(ctx context.Context, x ExchangeRequest) (result ExchangeResult, err error) {
	result, became, err := m.exchange(ctx, x)
	if err != nil {
		return result, err
	}
	if len(became) > 0 {
		m.shares(became)
	}
	m.mu.Lock()
	asked := m.asked
	m.mu.Unlock()
	if asked != nil {
		asked(&x, &result)
	}
	return result, nil
}

// whenAsked has fn called with each exchange from now on.
func (m *memoryRegistry) whenAsked(fn func(*ExchangeRequest, *ExchangeResult)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = fn
}

func (m *memoryRegistry) exchange(_ context.Context, x ExchangeRequest) (result ExchangeResult, became []DeviceKey, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails {
		return result, nil, errRegistryGone
	}
	if m.exchanges++; m.apart || x.Relay == m.apartFrom {
		return result, nil, errRegistryGone
	}
	m.left[x.Relay] = x.Leave
	result.Now = time.Now().Add(m.ahead)
	first := map[DeviceKey]int{}
	for i := range x.Devices {
		u := &x.Devices[i]
		if n, again := first[u.DeviceKey]; again {
			result.Devices = append(result.Devices, result.Devices[n])
			continue
		}
		first[u.DeviceKey] = i
		d := m.shared[u.DeviceKey]
		if d == nil {
			d = &SharedDevice{DeviceKey: u.DeviceKey}
		}
		behind := d.Behind(u)
		d.Merge(u, ExchangeTerms{
			Relay: x.Relay, Now: result.Now, Lifetime: x.Lifetime, Stray: x.Stray, ShownFor: x.ShownFor, Live: m.live(u.DeviceKey),
			PusherFree: m.silent[d.Pusher] || m.left[d.Pusher], PusherSilent: m.silent[d.Pusher],
		})
		if _, known := m.shared[u.DeviceKey]; d.Shared && (!known || behind) || !d.Shared && known && x.Lifetime > 0 {
			became = append(became, u.DeviceKey)
		}
		m.shared[u.DeviceKey] = d
		if !d.Shared {
			delete(m.shared, u.DeviceKey)
		}
		told := *d
		told.Parts = slices.Clone(d.Parts)
		result.Devices = append(result.Devices, told)
	}
	for _, key := range slices.SortedFunc(maps.Keys(m.shared), func(a, b DeviceKey) int { return cmp.Compare(a.Device.Hex(), b.Device.Hex()) }) {
		d := m.shared[key]
		if x.Due == 0 || key.Device.Hex() <= x.After || !d.Due(x.Relay, x.Lifetime, m.silent[d.Pusher] || m.left[d.Pusher], result.Now) {
			continue
		}
		if len(result.Due) == x.Due {
			result.Next = result.Due[x.Due-1].Device.Hex()
			break
		}
		result.Due = append(result.Due, DueDevice{DeviceKey: key, Sequence: d.Sequence, Ours: d.Pusher == x.Relay, Again: d.Again(result.Now), Organizations: d.Waiting(result.Now)})
	}
	return result, became, nil
}

// keepShared returns what makes a shared device again what it is now. No relay is told.
func (m *memoryRegistry) keepShared(device apns.DeviceToken) (back func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := *m.shared[DeviceKey{app, device}]
	kept.Parts = slices.Clone(kept.Parts)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.shared[kept.DeviceKey] = &kept
	}
}

// storeFrom has a relay that was before store a count of a device that is on a mailbox of
// the organization and on one that nobody has reported. No relay is told.
func (m *memoryRegistry) storeFrom(instance string, o OrganizationID, mailbox string, device apns.DeviceToken) {
	m.mu.Lock()
	defer m.mu.Unlock()
	long := time.Now().Add(-time.Hour)
	for _, name := range []string{mailbox, mailbox + "too"} {
		key := MailboxKey{o, name}
		m.subs[key] = append(m.subs[key], Subscription{App: app, Device: device, RegisteredAt: long})
	}
	d := &SharedDevice{DeviceKey: DeviceKey{app, device}}
	d.Merge(&SharedUpdate{Counts: []ReceivedCount{{MailboxKey{o, mailbox}, 3, long}}}, ExchangeTerms{
		Relay: instance, Now: long, Lifetime: time.Minute, ShownFor: time.Hour, Live: m.live(d.DeviceKey)})
	m.shared[d.DeviceKey] = d
}

func (m *memoryRegistry) subscribe(o OrganizationID, mailbox string, d apns.DeviceToken) {
	m.mu.Lock()
	key := MailboxKey{o, mailbox}
	var changed []MailboxKey
	for other, subs := range m.subs {
		if other.Organization == o {
			kept := slices.DeleteFunc(slices.Clone(subs), func(s Subscription) bool { return s.Device == d })
			if len(kept) != len(subs) {
				m.subs[other] = kept
				changed = append(changed, other)
			}
		}
	}
	m.subs[key] = append(m.subs[key], Subscription{App: app, Device: d, RegisteredAt: time.Now()})
	m.mu.Unlock()
	m.changed(append(changed, key))
}

// setDevice puts a shared device on these mailboxes of an organization and no others.
func (m *memoryRegistry) setDevice(o OrganizationID, d apns.DeviceToken, mailboxes ...string) {
	m.mu.Lock()
	var changed []MailboxKey
	for key, subs := range m.subs {
		if key.Organization == o && !slices.Contains(mailboxes, key.Mailbox) {
			m.subs[key] = slices.DeleteFunc(slices.Clone(subs), func(s Subscription) bool { return s.Device == d })
			changed = append(changed, key)
		}
	}
	for _, mailbox := range mailboxes {
		key := MailboxKey{o, mailbox}
		m.subs[key] = append(m.subs[key], Subscription{App: app, Device: d, RegisteredAt: time.Now()})
		changed = append(changed, key)
	}
	m.shared[DeviceKey{app, d}].Sequence++
	m.mu.Unlock()
	m.changed(changed)
}

func (m *memoryRegistry) unsubscribe(o OrganizationID, mailbox string, d apns.DeviceToken) {
	m.unsubscribeUnheard(MailboxKey{o, mailbox}, d)
	m.changed([]MailboxKey{{o, mailbox}})
}

// unsubscribeUnheard tells no relay of it.
func (m *memoryRegistry) unsubscribeUnheard(key MailboxKey, d apns.DeviceToken) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.subs[key] = slices.DeleteFunc(slices.Clone(m.subs[key]), func(s Subscription) bool { return s.Device == d })
	if shared := m.shared[DeviceKey{app, d}]; shared != nil {
		shared.Sequence++
	}
}

func (m *memoryRegistry) setApart(apart bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.apart = apart
}

// setSilent says whether a relay has not been heard of for long.
func (m *memoryRegistry) setSilent(relay string, silent bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.silent[relay] = silent
}

func (m *memoryRegistry) setApartFrom(instance string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.apartFrom = instance
}

func (m *memoryRegistry) setFails(fails bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fails = fails
}

func (m *memoryRegistry) Scan(_ context.Context, fn func([]Entry) error) error {
	m.mu.Lock()
	fails, scanned := m.fails, m.scanned
	var state []Entry
	for key, subs := range m.subs {
		for _, s := range subs {
			state = append(state, Entry{key, s})
		}
	}
	m.mu.Unlock()
	if fails {
		return errRegistryGone
	}
	if scanned != nil {
		scanned()
	}
	for len(state) > 0 { // a mailbox's devices come in different batches
		n := min(3, len(state))
		if err := fn(state[:n]); err != nil {
			return err
		}
		state = state[n:]
	}
	return nil
}

func (m *memoryRegistry) Lookup(_ context.Context, keys []MailboxKey) ([][]Subscription, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails {
		return nil, errRegistryGone
	}
	m.lookups++
	if slices.Contains(keys, m.broken) {
		return nil, errRegistryGone
	}
	found := make([][]Subscription, len(keys))
	for i, key := range keys {
		found[i] = slices.Clone(m.subs[key])
		for j, s := range found[i] {
			found[i][j].Shared = m.shared[DeviceKey{s.App, s.Device}] != nil
		}
	}
	return found, nil
}

func (m *memoryRegistry) Refuse(_ context.Context, refusals []Refusal) ([]Judgement, error) {
	m.mu.Lock()
	if m.fails {
		m.mu.Unlock()
		return nil, errRegistryGone
	}
	judged := make([]Judgement, len(refusals))
	var ended []MailboxKey
	for i := range refusals {
		if judged[i] = m.refuse(&refusals[i], time.Now()); judged[i].Verdict == RefusalRemoves {
			ended = append(ended, refusals[i].Key)
		}
	}
	m.mu.Unlock()
	m.changed(ended)
	time.Sleep(m.slow)
	return judged, nil
}

func (m *memoryRegistry) refuse(f *Refusal, now time.Time) Judgement {
	subs := m.subs[f.Key]
	at := slices.IndexFunc(subs, func(s Subscription) bool { return s.App == f.App && s.Device == f.Device })
	if at < 0 {
		return Judgement{}
	}
	if m.budget.Renewed(now) {
		live := 0
		for _, subs := range m.subs {
			live += len(subs)
		}
		m.budget.Renew(live)
	}
	j := m.budget.Limit(f, f.Judge(subs[at].Quarantine, subs[at].RegisteredAt, now), now)
	subs = slices.Clone(subs)
	subs[at].Quarantine = j.Quarantine
	if j.Verdict == RefusalRemoves {
		subs = slices.Delete(subs, at, at+1)
		m.removed = append(m.removed, *f)
		if shared := m.shared[DeviceKey{f.App, f.Device}]; shared != nil {
			shared.Sequence++
		}
	}
	m.subs[f.Key] = subs
	return j
}

func (m *memoryRegistry) ForgetRefusals(_ context.Context, subscribers []Subscriber) error {
	m.mu.Lock()
	if m.fails {
		m.mu.Unlock()
		return errRegistryGone
	}
	var keys []MailboxKey
	for _, who := range subscribers {
		keys = append(keys, who.Key)
		subs := slices.Clone(m.subs[who.Key])
		for i := range subs {
			if subs[i].App == who.App && subs[i].Device == who.Device {
				subs[i].Quarantine = nil
			}
		}
		m.subs[who.Key] = subs
	}
	m.mu.Unlock()
	m.changed(keys)
	return nil
}

func (m *memoryRegistry) NoteAccepted(_ context.Context, _ string, g Generation, accepted int) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accepted[g] = max(m.accepted[g], accepted)
	return m.accepted[g], nil
}
