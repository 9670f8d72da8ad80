package relay

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"badgerelay/apns"
	"badgerelay/relay/lookup"
)

// wantCompact expects how many mailboxes are compact.
func (h *harness) wantCompact(want int, why string) {
	h.t.Helper()
	if got := h.relay.Stats().Idle; got != want {
		h.t.Fatalf("%d mailboxes are compact, want %d: %s", got, want, why)
	}
}

// wantLookups expects how many times the registry was asked so far.
func (h *harness) wantLookups(want int, why string) {
	h.t.Helper()
	h.registry.mu.Lock()
	defer h.registry.mu.Unlock()
	if got := h.registry.lookups; got != want {
		h.t.Fatalf("%d look-ups, want %d: %s", got, want, why)
	}
}

func TestQuietMailboxRestsAndKnowsWhatItKnew(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "sales", phone(1))
		h.registry.subscribe(org, "sales", phone(2))
		s, other := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(org, "other")
		versioned := Event{Mailbox: "sales", Unread: 5, Epoch: 1, Version: 10}
		h.submit(s, versioned)
		h.accept("both devices", "1=5", "2=5")
		h.wantSettled(s, "through 1")
		h.after(compactAfter - time.Millisecond)
		h.wantCompact(0, "not quiet for long enough")
		h.after(compactAfter + time.Second)
		h.wantCompact(1, "every shard has had its turn")

		stale := versioned
		stale.Version = 9
		h.submit(other, stale)
		h.wantSettled(other, "through 1, 1 stale")
		h.after(2 * compactAfter)
		h.wantCompact(1, "quiet again")
		h.submit(s, versioned)
		h.wantPushes("both show it already")
		h.wantSettled(s, "through 2, 2 unchanged")
		h.after(2 * compactAfter)
		h.submit(s, Event{Mailbox: "sales", Unread: 6, Epoch: 1, Version: 11})
		h.accept("both devices", "1=6", "2=6")
		h.wantLookups(1, "nothing was forgotten")
		s.Close()
		other.Close()
	})
}

func TestMailboxWithoutSubscriptionsRests(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("nobody", 1))
		h.after(2 * compactAfter)
		h.wantCompact(1, "it is known that nobody is there")
		h.submit(s, count("nobody", 2))
		h.wantSettled(s, "through 2, 1 no_subscription, 2 no_subscription")
		h.wantLookups(1, "it was remembered")
		s.Close()
	})
}

// TestOrderOfACompactMailboxIsForgottenInTime has another agent come with an
// older count while the mailbox is compact.
func TestOrderOfACompactMailboxIsForgottenInTime(t *testing.T) {
	for name, first := range map[string]Event{
		"version":     {Mailbox: "a", Unread: 5, Epoch: 2, Version: 1 << 60},
		"observation": {Mailbox: "a", Unread: 5},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(h *harness) {
				h.registry.subscribe(org, "a", phone(1))
				one, two := h.relay.OpenStream(org, "one"), h.relay.OpenStream(org, "two")
				older := Event{Mailbox: "a", Unread: 6, Epoch: first.Epoch, Version: first.Version / 2, ObservedAt: time.Now().Add(-time.Second)}
				h.submit(one, first)
				h.accept("first", "1=5")
				h.after(orderMemory - time.Millisecond)
				h.wantCompact(1, "quiet")
				h.submit(two, older)
				h.wantSettled(two, "through 1, 1 stale")
				h.after(time.Millisecond)
				h.submit(two, older)
				h.accept("the order is not remembered any more", "1=6")
				one.Close()
				two.Close()
			})
		})
	}
}

func TestMailboxDoesNotRestWhileItsDeviceWaits(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribe(org, "a", phone(2))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1))
		pushes := h.wantPushes("both", "1=1", "2=1")
		h.answer(nil, pushes[0])
		h.answer(unavailable(), pushes[1])
		s.Close() // the event is given up, the device's wait goes on
		h.after(3 * compactAfter)
		h.wantCompact(0, "APNs asked to wait with this count")
		s = h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1))
		h.wantPushes("it still has to wait")
		h.after(20 * time.Minute)
		h.accept("after Apple's quarter of an hour", "2=1")
		h.after(2 * compactAfter)
		h.wantCompact(1, "all is quiet")
		s.Close()
	})
}

// TestDeviceIsTakenBackFromCompaction has a mailbox stay active because of its second
// device, when the first is compact already: that one comes back as another, so
// that nothing is left of it when it leaves.
func TestDeviceIsTakenBackFromCompaction(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribe(org, "a", phone(2))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1))
		pushes := h.wantPushes("both", "1=1", "2=1")
		h.answer(nil, pushes[0])
		h.answer(unavailable(), pushes[1])
		s.Close() // the event is given up, the second device's wait goes on
		h.after(3 * compactAfter)
		h.wantCompact(0, "the second device is not quiet")
		h.registry.unsubscribe(org, "a", phone(1))
		s = h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 2))
		h.accept("the device that is left", "2=2")
		s.Close()
	})
}

func TestSubscriptionsOfACompactMailboxChange(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.after(time.Second)
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 5))
		h.accept("first", "1=5")
		h.after(2 * compactAfter)
		h.wantCompact(1, "quiet")
		h.registry.subscribe(org, "a", phone(2))
		h.submit(s, count("a", 5))
		h.accept("the new device only", "2=5")
		s.Close()
	})
}

func TestOrganizationGoneTakesCompactMailboxesAlong(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribe(2, "a", phone(2))
		h.after(0)
		h.relay.OrganizationGone(org)
		s := h.relay.OpenStream(2, "mx")
		h.submit(s, count("a", 1))
		h.accept("the other organization", "2=1")
		h.after(2 * compactAfter)
		h.wantCompact(1, "one of two is left")
		h.relay.OrganizationGone(2)
		h.wantCompact(0, "none is left")
		if n := h.relay.Stats().Devices; n != 0 {
			t.Errorf("%d devices are known, want none", n)
		}
		if n := len(h.relay.apps.named(app).health.byOrg); n != 0 {
			t.Errorf("%d queues are kept, want none", n)
		}
		s.Close()
	})
}

func TestFullShardForgetsOneThatIsQuiet(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxMailboxes = 8 * shards }, func(h *harness) {
		s := h.relay.OpenStream(org, "mx")
		for part := range 64 {
			events := make([]Event, shards/4)
			for i := range events {
				events[i] = count(fmt.Sprint("m", part, "-", i), 1)
			}
			h.submit(s, events...)
			if part == 32 {
				h.after(2 * compactAfter)
			}
		}
		if n := h.relay.Stats().Mailboxes; n > 8*shards {
			t.Errorf("%d mailboxes are known, the limit is %d", n, 8*shards)
		}
		if n := h.relay.Ledger().Outcomes[OutcomeAbandoned]; n != 0 {
			t.Errorf("%d events abandoned, though others could be forgotten", n)
		}
		s.Close()
	})
}

// TestCompactionKeepsMailboxesOfOneHashApart is about what happens once in a blue
// moon: only one of two mailboxes with the same hash can be compact.
func TestCompactionKeepsMailboxesOfOneHashApart(t *testing.T) {
	r := newRelay(t, newMemoryRegistry(), nil)
	a, b := MailboxKey{org, "a"}, MailboxKey{org, "b"}
	sh, hash := r.shardOf(b.Organization, b.Mailbox) // a is put there too
	_, own := r.shardOf(a.Organization, a.Mailbox)
	var active [2]*mailbox
	for i, key := range []MailboxKey{a, b} {
		m := sh.add([]uint64{own, hash}[i], key)
		active[i] = m
		m.subs = lookup.Known
		target := m.newTarget(r.apps.named(app).statsOf(org))
		r.devices.attach(target, deviceKey{r.apps.named(app), phone(i)}, false)
		m.targets = append(m.targets, target)
	}
	now := int64(2 * compactAfter)
	r.compactMailbox(active[0], now, nil)
	e, _ := sh.compact.get(own)
	sh.compact.put(hash, e)
	sh.compact.remove(own)
	if m := r.activate(sh, hash, b); m != nil {
		t.Fatalf("asked for b, %v became active", m.key)
	}
	r.compactMailbox(active[1], now, nil)
	if sh.active.find(hash, b) == nil || sh.compact.len() != 1 {
		t.Fatal("b was compacted in the place of a")
	}
	if m := r.activate(sh, hash, a); m == nil || m.targets[0].device.token != phone(0) {
		t.Fatalf("a became active as %v", m)
	}
}

// TestEncodedMailboxKeepsWhatIsWritten encodes mailboxes at random and reads them back.
func TestEncodedMailboxKeepsWhatIsWritten(t *testing.T) {
	r := newRelay(t, newMemoryRegistry(), func(c *Config) { c.Apps = []string{"one", "two"} })
	rng := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		key := MailboxKey{OrganizationID(rng.Int64N(1 << 40)), string(make([]byte, 1+rng.IntN(MaxMailboxSize)))}
		now := rng.Int64N(1<<60) + 3*int64(orderMemory)
		receivedAt := now - rng.Int64N(2*int64(orderMemory))
		o := order{
			epoch: rng.Uint64(), version: rng.Uint64(), versionAgent: agentHash(rng.Uint32()), versionAt: receivedAt - rng.Int64N(int64(orderMemory)),
			agent: agentHash(rng.Uint32()), observedAt: rng.Int64N(1<<43) * int64(time.Millisecond),
		}
		if rng.IntN(4) == 0 { // no event has come
			o, receivedAt = order{}, 0
		}
		unread, counted := rng.Uint32N(MaxUnread), rng.IntN(2) == 0
		b := encodeOrder(encodeCount(encodeHead(nil, key), unread, counted), &o, receivedAt, now)
		if !o.remembersVersion(now) {
			o.epoch, o.version, o.versionAgent, o.versionAt = 0, 0, 0, 0
		}
		written := make([]compactDevice, rng.IntN(4))
		for i := range written {
			d := &written[i]
			d.key.app = r.apps.all()[rng.IntN(2)]
			d.key.token, _ = apns.DeviceTokenFromBytes(make([]byte, 32+rng.IntN(69)))
			d.registeredAt = rng.Int64N(1 << 45)
			if rng.IntN(2) == 0 {
				d.shown, d.shownAt = rng.Uint32(), (rng.Int64N(1<<40)+1)<<compactTickBits
			}
			b = encodeDevice(b, d)
		}
		reader := mailboxDecoder{left: b}
		if got := reader.key(); got != key {
			t.Fatalf("key %v, want %v", got, key)
		}
		if got, at := reader.order(); got != o || at != receivedAt {
			t.Fatalf("order %+v at %d, want %+v at %d", got, at, o, receivedAt)
		}
		if reader.counted != counted || counted && reader.unread != unread {
			t.Fatalf("count %d %v, want %d %v", reader.unread, reader.counted, unread, counted)
		}
		for i := range written {
			if got, ok := reader.device(r.apps.all()); !ok || got != written[i] {
				t.Fatalf("device %v %v, want %v", got, ok, written[i])
			}
		}
		if _, ok := reader.device(r.apps.all()); ok {
			t.Fatal("a device more than was written")
		}
	}
}

// TestCompactMailboxIsSmall holds the design's budget of memory for a device.
// The part of the heap that Go keeps free between two collections comes on top.
func TestCompactMailboxIsSmall(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector needs memory of its own: the budget is checked without it")
		return
	}
	const mailboxes, budget = 100_000, 120
	registry := newMemoryRegistry()
	for i := range mailboxes {
		registry.subs[MailboxKey{org, fmt.Sprintf("user%06d@fabrikam.com", i)}] = []Subscription{
			{App: app, Device: phone(i), RegisteredAt: time.UnixMilli(1_790_000_000_000 + int64(i))},
		}
	}
	before := liveHeap()
	r := newRelay(t, registry, nil)
	r.warmUp(t.Context())
	if got := r.Stats().Idle; got != mailboxes {
		t.Fatalf("%d mailboxes are compact, want %d", got, mailboxes)
	}
	perDevice := (liveHeap() - before) / mailboxes
	t.Logf("%d bytes per device; active: mailbox %d, target %d, device %d",
		perDevice, unsafe.Sizeof(mailbox{}), unsafe.Sizeof(target{}), unsafe.Sizeof(device{}))
	if size := unsafe.Sizeof(mailbox{}); size > 416 { // what Go allocates
		t.Errorf("a mailbox takes %d bytes active, want 416", size)
	}
	if perDevice > budget {
		t.Errorf("a mailbox with one device takes %d bytes compact, the budget is %d", perDevice, budget)
	}
	runtime.KeepAlive(registry)
	runtime.KeepAlive(r)
}

func liveHeap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkActivateAndCompact(b *testing.B) {
	r, _, events := hotRelay(b, 10_000)
	for i := range r.shards {
		for m := range r.shards[i].active.all() {
			m.receivedAt = -int64(compactAfter)
		}
		r.compactShard(&r.shards[i], nil)
	}
	var buffer []byte
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		name := events[n%len(events)].Mailbox
		sh, hash := r.shardOf(org, name)
		m := r.activate(sh, hash, MailboxKey{org, name})
		if m == nil {
			b.Fatal("the mailbox is not compacted")
		}
		buffer, _ = r.compactMailbox(m, r.now(), buffer[:0])
	}
}

// TestMemoryIsGivenBackWhenABurstIsOver has many mailboxes compacted, turn by turn.
// Most have when a round ends, and the memory of the others is given back when a turn
// finds no more of them.
func TestMemoryIsGivenBackWhenABurstIsOver(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		s := h.relay.OpenStream(org, "mx")
		events := make([]Event, 3*worthACollection)
		for i := range events {
			events[i] = count(fmt.Sprintf("user%d", i), 1)
			h.registry.subs[MailboxKey{org, events[i].Mailbox}] = []Subscription{{App: app, Device: phone(i)}}
		}
		h.after(compactAfter / 5)
		h.pool.room = len(events)
		h.submit(s, events...)
		h.answer(nil, h.pool.taken()...)
		h.after(2 * compactAfter)
		h.wantCompact(len(events), "each shard had its turn since they are quiet")
		collections := func() uint32 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.NumForcedGC
		}
		before := collections()
		h.after(2 * compactAfter * 8 / shards)
		if got := collections() - before; got != 1 {
			t.Errorf("memory was given back %d times, want once", got)
		}
		h.after(compactAfter / 2)
		if got := collections() - before; got != 1 {
			t.Errorf("then, with nothing to give back, it was %d times, want once", got)
		}
		s.Close()
	})
}

// TestCompactedMailboxesGiveTheirMemoryBack has every mailbox activated, and
// compacted again.
func TestCompactedMailboxesGiveTheirMemoryBack(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector needs memory of its own: the budget is checked without it")
		return
	}
	const mailboxes, budget = 20_000, 200
	r, _, events := hotRelay(t, mailboxes)
	for i := range r.shards {
		for m := range r.shards[i].active.all() {
			m.receivedAt = -int64(compactAfter)
		}
		r.compactShard(&r.shards[i], nil)
	}
	r.devices.shrink()
	if got := r.Stats().Idle; got != mailboxes {
		t.Fatalf("%d mailboxes are compact, want %d", got, mailboxes)
	}
	registry := r.subscriptions
	full := liveHeap()
	runtime.KeepAlive(r)
	r = nil
	perDevice := (full - liveHeap()) / mailboxes
	t.Logf("%d bytes per device", perDevice)
	if perDevice > budget {
		t.Errorf("a mailbox that is compact again takes %d bytes, the budget is %d", perDevice, budget)
	}
	runtime.KeepAlive(registry)
	runtime.KeepAlive(events)
}
