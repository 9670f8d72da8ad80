package relay

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
)

// stopped makes it seem that the process was stopped for longer than its pulse bears.
func (h *harness) stopped() { h.relay.pulse.until.Store(apns.DeadlineIn(0)) }

func severalRelays(c *Config) { c.Window, c.MaxInFlight = -1, time.Minute }

// TestStoppedProcessSendsNothingOld drops everything that was pending before it
// hands out a push, whoever looks first.
func TestStoppedProcessSendsNothingOld(t *testing.T) {
	for name, wake := range map[string]func(h *harness){
		"the pool looks first":  func(h *harness) { h.pool.setRoom(1000); h.pool.draw() },
		"the pulse looks first": func(h *harness) { h.after(time.Second); h.pool.setRoom(1000); h.pool.draw() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, severalRelays, func(h *harness) {
				h.registry.subscribe(org, "a", phone(1))
				h.registry.subscribe(org, "b", phone(2))
				s, idle := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(org, "idle")
				dropped := map[*Stream]int{}
				for _, one := range []*Stream{s, idle} {
					one.OnDropped(func() { dropped[one]++ })
				}
				h.submit(s, count("b", 1))
				inFlight := h.wantPushes("", "2=1")
				h.pool.setRoom(0)
				h.submit(s, count("a", 1), count("b", 2))
				h.stopped()
				wake(h)
				h.wantPushes("what waited is old")
				h.answer(&apns.Error{Reason: apns.ReasonConnectionLost}, inFlight...)
				h.wantPushes("what was lost is not sent again")
				if l := h.relay.Ledger(); l.Pending != 0 || l.Outcomes[OutcomeAbandoned] != 2 {
					t.Errorf("ledger %+v, want two counts abandoned and none pending", l)
				}
				if err := s.Submit(t.Context(), 4, []Event{count("a", 1)}); !errors.Is(err, ErrClosed) {
					t.Errorf("the stream takes more: %v", err)
				}
				if dropped[s] != 1 || dropped[idle] != 1 {
					t.Errorf("streams were told %v, want each once", dropped)
				}
				if n := h.relay.pulse.stops.Load(); n != 1 {
					t.Errorf("%d stops are counted, want 1", n)
				}
				back := h.relay.OpenStream(org, "mx")
				h.submit(back, count("a", 3))
				h.accept("a new stream's count is new", "1=3")
				back.Close()
			})
		})
	}
}

// TestPushesCarryTheirDeadline, which is never more than the bound ahead, and not
// in the past while the process runs.
func TestPushesCarryTheirDeadline(t *testing.T) {
	bubble(t, severalRelays, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		defer s.Close()
		for i := range uint32(100) {
			h.submit(s, count("a", i))
			pushes := h.pool.taken()
			if len(pushes) != 1 || pushes[0].Deadline == nil {
				t.Fatalf("pushes %v, want one with a deadline", pushes)
			}
			h.answer(nil, pushes...)
			h.after(997 * time.Millisecond)
			if pushes[0].Deadline.Passed() {
				t.Fatal("the deadline has passed within a second")
			}
			if i == 0 {
				h.after(h.relay.pulse.bound)
				if !pushes[0].Deadline.Passed() {
					t.Fatalf("the deadline is more than %v ahead", h.relay.pulse.bound)
				}
			}
		}
		if n := h.relay.pulse.stops.Load(); n != 0 {
			t.Errorf("%d stops are counted, and there was none", n)
		}
	})
}

func TestRelayAloneBearsAnyStop(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		defer s.Close()
		h.pool.setRoom(0)
		h.submit(s, count("a", 1))
		h.after(time.Hour)
		h.pool.setRoom(1)
		h.pool.draw()
		synctest.Wait()
		if pushes := h.wantPushes("nobody else has pushed", "1=1"); pushes[0].Deadline != nil {
			t.Error("the push has a deadline")
		}
	})
}
