package relay

import (
	"fmt"
	"testing"
	"time"
)

// warmBubble runs a test with subscriptions that were there before the relay.
func warmBubble(t *testing.T, prepare func(*memoryRegistry), f func(h *harness)) {
	t.Helper()
	registry := newMemoryRegistry()
	bubbleOn(t, registry, func(*Config) {
		registry.subscribe(org, "a", phone(1))
		registry.subscribe(org, "a", phone(2))
		registry.subscribe(org, "b", phone(3))
		prepare(registry)
	}, f)
}

func TestWarmUpSparesLookUps(t *testing.T) {
	warmBubble(t, func(*memoryRegistry) {}, func(h *harness) {
		h.after(0)
		h.wantCompact(2, "all there are")
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1), count("b", 2))
		h.accept("as subscribed", "1=1", "2=1", "3=2")
		h.wantLookups(0, "the scan has told it all")
		s.Close()
	})
}

func TestWarmUpIsTriedAgain(t *testing.T) {
	warmBubble(t, func(r *memoryRegistry) { r.fails = true }, func(h *harness) {
		h.after(0)
		h.wantCompact(0, "the registry is away")
		h.registry.setFails(false)
		h.after(5 * time.Second)
		h.wantCompact(2, "it is back")
	})
}

func TestWarmUpYieldsToTheChangeFeed(t *testing.T) {
	warmBubble(t, func(r *memoryRegistry) {
		r.scanned = func() { time.Sleep(time.Second) }
	}, func(h *harness) {
		h.after(0) // the scan has read, and has told nothing yet
		h.registry.unsubscribe(org, "a", phone(1))
		h.registry.subscribe(2, "c", phone(4))
		h.relay.OrganizationGone(2)
		h.after(2 * time.Second)
		h.wantCompact(1, "only b is as it was")
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1))
		h.accept("the device that left is left alone", "2=1")
		s.Close()
	})
}

func TestWarmUpKeepsWhatAnEventBrought(t *testing.T) {
	warmBubble(t, func(r *memoryRegistry) {
		r.scanned = func() { time.Sleep(time.Second) }
	}, func(h *harness) {
		h.after(0)
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("b", 2))
		h.accept("events are taken while the scan goes on", "3=2")
		h.after(2 * time.Second)
		h.wantCompact(1, "a alone")
		h.submit(s, count("b", 2))
		h.wantPushes("unchanged")
		s.Close()
	})
}

func TestWarmUpStopsAtTheLimit(t *testing.T) {
	registry := newMemoryRegistry()
	for i := range 10 * shards {
		registry.subs[MailboxKey{org, phone(i).Hex()}] = []Subscription{{App: app, Device: phone(i)}}
	}
	bubbleOn(t, registry, func(c *Config) { c.MaxMailboxes = shards }, func(h *harness) {
		h.after(0)
		if n := h.relay.Stats().Mailboxes; n > shards || n == 0 {
			t.Errorf("%d mailboxes in memory, the limit is %d", n, shards)
		}
	})
}

// TestWarmUpNeedsRoom has a registry of a multiple of what the relay may keep.
func TestWarmUpNeedsRoom(t *testing.T) {
	for _, c := range []struct {
		expected uint64
		warm     bool
	}{{0, true}, {4 * shards, true}, {4*shards + 1, false}, {100_000_000, false}} {
		registry := newMemoryRegistry()
		registry.subscribe(org, "a", phone(1))
		bubbleOn(t, registry, func(to *Config) { to.MaxMailboxes, to.Expected = shards, c.expected }, func(h *harness) {
			h.after(0)
			s := h.relay.OpenStream(org, "mx")
			h.submit(s, count("a", 1))
			h.accept("read ahead or not", "1=1")
			h.wantLookups(map[bool]int{true: 0, false: 1}[c.warm], "mailboxes expected: "+fmt.Sprint(c.expected))
			s.Close()
		})
	}
}
