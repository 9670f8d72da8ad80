package relay

import (
	"testing"
	"time"
)

// TestOrderOfEvents lets agents send one event after the other, of one mailbox.
// A count that is stale is not pushed.
func TestOrderOfEvents(t *testing.T) {
	at := func(second int) time.Time { return time.Date(1999, 12, 31, 0, 0, second, 0, time.UTC) } // before a bubble begins
	type sent struct {
		by    string
		event Event
		stale bool
		after time.Duration // since the event before
	}
	versioned := func(epoch, version uint64) Event { return Event{Epoch: epoch, Version: version} }
	observed := func(second int) Event { return Event{ObservedAt: at(second)} }
	both := func(version uint64, second int) Event {
		return Event{Epoch: 1, Version: version, ObservedAt: at(second)}
	}
	const almost = orderMemory - time.Nanosecond
	for name, events := range map[string][]sent{
		"one agent's index is rebuilt":        {{by: "a", event: both(9, 9)}, {by: "a", event: both(1, 9)}, {by: "a", event: versioned(0, 1)}},
		"one agent's clock is set back":       {{by: "a", event: observed(9)}, {by: "a", event: observed(1)}, {by: "a", event: observed(5)}},
		"a greater version of another":        {{by: "a", event: both(9, 9)}, {by: "b", event: both(10, 1)}},
		"a lower version of another":          {{by: "a", event: both(9, 1)}, {by: "b", event: both(8, 9), stale: true}},
		"the same version, observed before":   {{by: "a", event: both(9, 5)}, {by: "b", event: both(9, 4), stale: true}},
		"the same version, observed later":    {{by: "a", event: both(9, 5)}, {by: "b", event: both(9, 5)}, {by: "a", event: both(9, 6)}},
		"another epoch, observed later":       {{by: "a", event: both(9, 5)}, {by: "b", event: Event{Epoch: 2, Version: 1, ObservedAt: at(6)}}},
		"another epoch, observed before":      {{by: "a", event: both(9, 5)}, {by: "b", event: Event{Epoch: 2, Version: 99, ObservedAt: at(4)}, stale: true}},
		"a lower epoch is not older":          {{by: "a", event: Event{Epoch: 2, Version: 9, ObservedAt: at(5)}}, {by: "b", event: both(1, 6)}},
		"no versions, observed before":        {{by: "a", event: observed(5)}, {by: "b", event: observed(4), stale: true}},
		"no versions, observed at once":       {{by: "a", event: observed(5)}, {by: "b", event: observed(5)}},
		"not said is now":                     {{by: "a", event: observed(5)}, {by: "b"}, {by: "a", event: observed(6), stale: true}, {by: "b", event: observed(5)}},
		"not said, and then said":             {{by: "a"}, {by: "b", event: observed(59), stale: true}},
		"an observation in the future is now": {{by: "a", event: Event{ObservedAt: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}}, {by: "b"}},
		"one with a version, one without":     {{by: "a", event: both(9, 5)}, {by: "b", event: observed(4), stale: true}, {by: "b", event: observed(6)}},
		"a version is not erased":             {{by: "a", event: both(9, 5)}, {by: "b", event: observed(6)}, {by: "c", event: both(8, 7), stale: true}, {by: "c", event: both(10, 1)}},
		"one's own version that another kept": {{by: "a", event: both(9, 5)}, {by: "b", event: observed(6)}, {by: "a", event: both(8, 7)}, {by: "a", event: both(7, 1)}},
		"a version is remembered":             {{by: "a", event: both(9, 5)}, {by: "b", event: both(8, 6), stale: true, after: almost}},
		"a version is forgotten":              {{by: "a", event: both(9, 5)}, {by: "b", event: both(8, 4), after: orderMemory}},
		"each event sets its own time":        {{by: "a", event: both(9, 5)}, {by: "a", event: both(10, 5), after: almost}, {by: "b", event: both(9, 6), stale: true, after: almost}},
		"one without does not set it":         {{by: "a", event: both(9, 5)}, {by: "a", event: observed(6), after: almost}, {by: "b", event: both(8, 7), after: 1}},
		"an observation is remembered":        {{by: "a", event: observed(5)}, {by: "b", event: observed(4), stale: true, after: almost}},
		"an observation is forgotten":         {{by: "a", event: observed(5)}, {by: "b", event: observed(4), after: orderMemory}},
		"a stale event sets nothing":          {{by: "a", event: observed(5)}, {by: "b", event: observed(4), stale: true, after: almost}, {by: "b", event: observed(4), after: 1}},
		"a restored mailbox, seen by another": {{by: "a", event: both(9, 5)}, {by: "b", event: both(2, 6), stale: true}, {by: "a", event: both(2, 7)}, {by: "b", event: both(3, 8)}},
		"the first version may be any":        {{by: "a", event: observed(5)}, {by: "b", event: both(1, 6)}, {by: "a", event: both(1, 5), stale: true}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(c *Config) { c.Window, c.ShownFor = -1, -1 }, func(h *harness) {
				h.registry.subscribe(org, "ann", phone(1))
				streams := map[string]*Stream{}
				for i, e := range events {
					h.after(e.after)
					s := streams[e.by]
					if s == nil {
						s = h.relay.OpenStream(org, e.by)
						streams[e.by] = s
						defer s.Close()
					}
					e.event.Mailbox, e.event.Unread = "ann", uint32(i)
					before := h.relay.Ledger().Outcomes[OutcomeStale]
					h.submit(s, e.event)
					pushes := h.pool.taken()
					h.answer(nil, pushes...)
					stale := h.relay.Ledger().Outcomes[OutcomeStale] > before
					if stale != e.stale || len(pushes) == 1 == e.stale {
						t.Fatalf("event %d, of %s: stale is %v, with %d pushes; want %v", i, e.by, stale, len(pushes), e.stale)
					}
				}
			})
		})
	}
}

// TestTheSameCountIsNotStale has an agent send once more what another one has sent,
// because something older was on the way at the relay that it left.
func TestTheSameCountIsNotStale(t *testing.T) {
	bubble(t, func(c *Config) { c.Window, c.MaxInFlight = -1, time.Minute }, func(h *harness) {
		h.registry.subscribe(org, "ann", phone(1))
		a, b := h.relay.OpenStream(org, "a"), h.relay.OpenStream(org, "b")
		defer a.Close()
		defer b.Close()
		observed := time.Now()
		at := func(version uint64, unread uint32, d time.Duration) Event {
			return Event{Mailbox: "ann", Unread: unread, Epoch: 1, Version: version, ObservedAt: observed.Add(-d)}
		}
		h.submit(a, at(9, 5, time.Second))
		h.accept("", "1=5")
		h.submit(b, at(9, 5, 2*time.Second))
		h.accept("b may have had another count shown elsewhere", "1=5")
		c := h.relay.OpenStream(org, "c")
		defer c.Close()
		h.submit(c, at(9, 4, 3*time.Second), at(8, 5, 0))
		h.wantPushes("another count of the version, and an older version")
		h.wantSettled(c, "through 2, 1 stale, 2 stale")
	})
}

// TestOrderOfPublish knows the agent by its id, as a stream's is known.
func TestOrderOfPublish(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		s := h.relay.OpenStream(org, "a")
		defer s.Close()
		h.submit(s, Event{Mailbox: "ann", Epoch: 1, Version: 9})
		for agent, want := range map[string]Outcome{"b": OutcomeStale, "a": OutcomeNoSubscription} {
			outcomes, err := h.relay.Publish(t.Context(), org, agent, []Event{{Mailbox: "ann", Epoch: 1, Version: 8}})
			if err != nil || outcomes[0].Outcome != want {
				t.Errorf("published by %s: %v, %v, want %v", agent, outcomes, err, want)
			}
			h.submit(s, Event{Mailbox: "ann", Epoch: 1, Version: 9})
		}
	})
}
