package relay

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
)

// afterAnother is of a relay that no other one works beside, and that another process
// may have been before.
func afterAnother(c *Config) { c.Window, c.MaxInFlight, c.Alone = -1, time.Minute, true }

// TestAloneTrustsNoYoungProcess has a relay begin: what the process before it had at
// the socket may come after its own first pushes.
func TestAloneTrustsNoYoungProcess(t *testing.T) {
	bubble(t, afterAnother, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 5))
		h.accept("", "1=5")
		h.after(time.Minute - 1)
		h.submit(s, count("a", 5))
		h.accept("the process before may have pushed since", "1=5")
		h.after(1)
		h.submit(s, count("a", 5))
		h.accept("the last push was a moment too early to count", "1=5")
		s.Close()
		back := h.relay.OpenStream(org, "mx")
		h.submit(back, count("a", 5))
		h.wantPushes("nobody else pushes, whatever stream it is")
		h.wantSettled(back, "through 1, 1 unchanged")
		back.Close()
	})
}

// TestAlonePublishGoesOn: nobody else may have a newer count.
func TestAlonePublishGoesOn(t *testing.T) {
	bubble(t, afterAnother, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		ctx, cancel := context.WithTimeout(h.t.Context(), time.Second)
		defer cancel()
		outcomes, err := h.relay.Publish(ctx, org, "mx", []Event{count("a", 5)})
		if err != nil || outcomes[0].Outcome != OutcomePending {
			t.Errorf("got %v, %v", outcomes, err)
		}
		h.answer(&apns.Error{Status: 503, Reason: "ServiceUnavailable"}, h.wantPushes("", "1=5")...)
		h.after(time.Hour)
		h.accept("the caller has gone", "1=5")
	})
}

// TestAloneCountAfterTheClockWasSetBack has the database's clock set back between two
// processes, and the first exchange of the second one be late: by then the clock has passed
// the times that the first one stored, and the new count is the newer one all the same.
func TestAloneCountAfterTheClockWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newMemoryRegistry()
		registry.subscribe(org, "a", phone(1))
		registry.subscribeToo(org, "b", phone(1))
		h := newHarnessOn(t, registry, afterAnother)
		h.after(2 * time.Minute)
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 3), count("b", 4))
		h.acceptAll()
		h.after(2 * time.Minute)
		h.submit(s, count("a", 5))
		h.acceptAll()
		s.Close()
		h.stop()
		registry.tellNobody()
		registry.setClock(-10 * time.Second)
		h = newHarnessOn(t, registry, afterAnother)
		defer h.stop()
		h.after(100 * time.Millisecond)
		s = h.relay.OpenStream(org, "mx")
		defer s.Close()
		registry.setApart(true)
		h.submit(s, count("a", 9))
		h.after(20 * time.Second)
		registry.setApart(false)
		h.after(20 * time.Second)
		h.accept("the newest count of a, and b's", "1=13")
		h.wantSettled(s, "through 1")
	})
}

// TestAloneSumAfterAnother kills a process whose sum is on its way: that may reach the
// device after what the next one pushes.
func TestAloneSumAfterAnother(t *testing.T) {
	for name, one := range map[string]struct {
		answered, parts bool
		again           []string
	}{
		"on its way":                 {false, false, []string{"1=9"}},
		"answered":                   {true, false, nil},
		"on its way, and one is off": {false, true, []string{"1=5"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				registry := newMemoryRegistry()
				registry.subscribe(org, "a", phone(1))
				registry.subscribe(other, "a", phone(1))
				h := newHarnessOn(t, registry, func(c *Config) { c.Window, c.MaxInFlight, c.Alone, c.Instance = -1, time.Minute, true, "before" })
				h.after(10 * time.Minute)
				ours, theirs := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
				h.submit(ours, count("a", 3))
				h.accept("", "1=3")
				h.submit(theirs, count("a", 4))
				if push := h.wantPushes("", "1=7"); one.answered {
					h.answer(nil, push...)
					synctest.Wait()
				}
				ours.Close()
				theirs.Close()
				h.stop()

				h = newHarnessOn(t, registry, func(c *Config) { afterAnother(c); c.Instance = "after" })
				defer h.stop()
				h.after(time.Second)
				ours = h.relay.OpenStream(org, "mx")
				if !one.answered {
					h.accept("it waits", "1=7")
				}
				h.submit(ours, count("a", 5))
				h.accept("", "1=9")
				if one.parts {
					registry.unsubscribe(other, "a", phone(1))
					h.relay.SubscriptionsChanged([]MailboxKey{{other, "a"}})
					h.after(time.Second)
					h.accept("without the other's", "1=5")
				}
				h.after(50 * time.Second)
				h.wantPushes("the first may still be on its way")
				h.after(15 * time.Second)
				h.accept("once more", one.again...)
				h.after(10 * time.Minute)
				h.wantPushes("once is enough")
				ours.Close()
			})
		})
	}
}
