package relay

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
)

// Refusals as APNs gives them.
func unavailable() *apns.Error { return &apns.Error{Status: 503, Reason: "ServiceUnavailable"} }
func tooMany() *apns.Error     { return &apns.Error{Status: 429, Reason: "TooManyRequests"} }
func lost() *apns.Error        { return &apns.Error{Reason: apns.ReasonConnectionLost} }
func badToken() *apns.Error    { return &apns.Error{Status: 400, Reason: "BadDeviceToken"} }
func unregistered(at time.Time) *apns.Error {
	return &apns.Error{Status: 410, Reason: "Unregistered", Timestamp: at}
}

func TestFirstEventGoesAtOnceAndTheRestAtTheEndOfTheWindow(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "sales", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("sales", 1))
		h.accept("a quiet mailbox's first event goes at once", "1=1")
		h.wantSettled(s, "through 1")

		for n := uint32(2); n <= 9; n++ {
			h.submit(s, count("sales", n))
		}
		h.after(time.Second - time.Millisecond)
		h.wantPushes("the window has not ended")
		h.wantSettled(s, "through 8, 2 superseded, 3 superseded, 4 superseded, 5 superseded, 6 superseded, 7 superseded, 8 superseded")
		h.after(time.Millisecond)
		h.accept("one push with the newest count at the window's end", "1=9")
		h.wantSettled(s, "through 9")
		h.after(2 * time.Second)
		h.wantPushes("and no second")
		h.submit(s, count("sales", 0))
		h.accept("quiet again: at once, and 0 clears the badge", "1=0")
		s.Close()
	})
}

func TestStormCostsOnePushAWindow(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "storm", phone(1))
		s := h.relay.OpenStream(org, "mx")
		pushes := 0
		for n := range uint32(1000) {
			h.submit(s, count("storm", n+1))
			got := h.pool.taken()
			pushes += len(got)
			h.answer(nil, got...)
			h.after(10 * time.Millisecond)
		}
		h.after(time.Second)
		got := h.pool.taken()
		h.answer(nil, got...)
		pushes += len(got)
		if pushes > 12 || pushes < 10 {
			t.Errorf("1000 events in 10 s cost %d pushes, want one a second", pushes)
		}
		if got[len(got)-1].Badge != 1000 {
			t.Errorf("last badge is %d, want 1000", got[len(got)-1].Badge)
		}
		s.Close()
	})
}

func TestOnePushInFlightAndRetryCarriesTheNewest(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1))
		first := h.wantPushes("goes at once", "1=1")
		h.submit(s, count("a", 2))
		h.submit(s, count("a", 3))
		h.wantPushes("one push in flight per device")
		h.wantSettled(s, "through 2, 1 superseded, 2 superseded")
		h.answer(lost(), first...)
		second := h.wantPushes("a lost push goes again at once, with the newest count", "1=3")
		h.submit(s, count("a", 4))
		h.answer(nil, second...)
		h.accept("the count that came meanwhile", "1=4")
		h.wantSettled(s, "through 4, 3 superseded")
		s.Close()
	})
}

func TestServerErrorHoldsThePayloadAndLetsANewerCountGo(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1))
		h.answer(unavailable(), h.wantPushes("", "1=1")...)
		h.after(15*time.Minute - time.Millisecond)
		h.wantPushes("the same payload waits 15 minutes")
		h.after(15*time.Minute/4 + 2*time.Millisecond)
		h.answer(unavailable(), h.wantPushes("then it goes, within the jitter", "1=1")...)
		h.submit(s, count("a", 2))
		h.accept("a newer count is a new payload", "1=2")
		h.wantSettled(s, "through 2, 1 superseded")
		h.after(time.Hour)
		h.wantPushes("nothing is left of the wait")
		s.Close()
	})
}

func TestEachCountWaitsOutItsOwnServerError(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		for n := uint32(1); n <= 2; n++ {
			h.submit(s, count("a", n))
			h.answer(unavailable(), h.wantPushes("a new count is a new payload", fmt.Sprint("1=", n))...)
			h.after(time.Minute)
		}
		h.submit(s, count("a", 3))
		h.accept("a third is a new payload, too", "1=3")
		h.submit(s, count("a", 1))
		h.after(15*time.Minute - 2*time.Minute - time.Millisecond)
		h.wantPushes("1 was refused a quarter of an hour ago, not yet")
		h.after(4 * time.Minute) // the jitter is a quarter at most
		h.accept("now it was", "1=1")
		s.Close()
	})
}

// TestServerErrorGoesAlongWithTheDevice has a device that two organizations know
// leave the one whose count was answered with a 5xx.
func TestServerErrorGoesAlongWithTheDevice(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribe(2, "b", phone(1))
		s, other := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(2, "mx")
		h.submit(s, count("a", 1))
		h.answer(unavailable(), h.wantPushes("", "1=1")...)
		h.submit(s, count("a", 2))
		h.accept("a newer count is a new payload", "1=2")
		h.registry.unsubscribe(org, "a", phone(1))
		h.submit(s, count("a", 3)) // the relay learns that nobody is there
		h.submit(other, count("b", 1))
		h.after(15*time.Minute - time.Millisecond)
		h.wantPushes("the device had this payload refused at its last mailbox")
		h.after(4 * time.Minute) // the jitter is a quarter at most
		h.accept("now it may have it", "1=1")
		s.Close()
		other.Close()
	})
}

// TestRegistrationEndsEveryPause has a device register anew whatever APNs asked
// for before: it is there, and is served at once.
func TestRegistrationEndsEveryPause(t *testing.T) {
	for name, refuse := range map[string]func() *apns.Error{
		"410": func() *apns.Error { return unregistered(time.Now().Add(-time.Hour)) }, "410 without a time": func() *apns.Error { return unregistered(time.Time{}) },
		"429": tooMany, "503": unavailable, "400": badToken, "foreign": func() *apns.Error { return &apns.Error{Status: 404, Reason: apns.ReasonForeignAnswer} },
	} {
		for _, mailbox := range []string{"a", "b"} {
			t.Run(name+" to "+mailbox, func(t *testing.T) {
				bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
					h.registry.subscribe(org, "a", phone(1))
					s := h.relay.OpenStream(org, "mx")
					for range 5 {
						h.submit(s, count("a", 1))
						h.answer(refuse(), h.pool.taken()...)
						h.after(time.Second)
					}
					h.answer(refuse(), h.pool.taken()...)
					h.wantPushes("the device waits")
					h.after(time.Millisecond)
					h.registry.subscribe(org, mailbox, phone(1))
					h.submit(s, count(mailbox, 1))
					h.accept("it is back", "1=1")
					s.Close()
				})
			})
		}
	}
}

func TestTooManyRequestsPausesTheDevice(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribe(org, "b", phone(2))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1))
		h.answer(tooMany(), h.wantPushes("", "1=1")...)
		h.submit(s, count("a", 2), count("b", 7))
		h.accept("a pause holds every count of this device, and of no other", "2=7")
		h.after(time.Second - time.Millisecond)
		h.wantPushes("the pause has not ended")
		h.after(time.Second/4 + 2*time.Millisecond)
		h.accept("the newest count after the pause", "1=2")
		h.wantSettled(s, "through 3, 1 superseded")
		s.Close()
	})
}

func TestGoneDevice(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		registered := time.Now()
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribe(org, "a", phone(2))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1))
		pushes := h.wantPushes("", "1=1", "2=1")
		h.answer(unregistered(registered.Add(time.Hour)), pushes[0])
		h.answer(nil, pushes[1])
		h.wantSettled(s, "through 1")
		if len(h.registry.removed) != 1 || h.registry.removed[0].Reason != "Unregistered" {
			t.Fatalf("removed %v, want the one device APNs refused", h.registry.removed)
		}
		h.submit(s, count("a", 2))
		h.answer(badToken(), h.wantPushes("only the live device", "2=2")...)
		got := h.wantSettled(s, "through 2, 2 undeliverable")
		if rm := got.Outcomes[0].Refused; len(rm) != 1 || rm[0].Device != phone(2) || rm[0].Reason != "BadDeviceToken" || !rm[0].Removed {
			t.Errorf("outcome names %v, want the refused device with its reason", rm)
		}
		h.submit(s, count("a", 3))
		h.wantSettled(s, "through 3, 3 no_subscription")
		s.Close()
	})
}

// TestDroppedPushLeavesTheSubscription has APNs refuse a push and not its device: nothing
// is held against the subscription, and the next count goes out.
func TestDroppedPushLeavesTheSubscription(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1))
		h.answer(&apns.Error{Status: 413, Reason: "PayloadTooLarge"}, h.wantPushes("", "1=1")...)
		got := h.wantSettled(s, "through 1, 1 undeliverable").Outcomes[0]
		want := RefusedSubscription{App: app, Device: phone(1), Reason: "PayloadTooLarge", Dropped: true}
		if !slices.Equal(got.Refused, []RefusedSubscription{want}) || got.Detail != "APNs refuses the push: PayloadTooLarge" {
			t.Errorf("told %+v and %q, want %+v", got.Refused, got.Detail, want)
		}
		wantReason := func(reason apns.Reason) {
			t.Helper()
			if d := h.relay.Inspect(MailboxKey{org, "a"}, nil).Devices[0]; d.Wait != WaitNone || d.Reason != reason || d.RefusedAt.IsZero() != (reason == "") {
				t.Errorf("the device is %+v, want %q as what was said last, and no wait", d, reason)
			}
		}
		wantReason("PayloadTooLarge")
		h.submit(s, count("a", 1))
		h.accept("the same count, which no device shows", "1=1")
		h.wantSettled(s, "through 2")
		wantReason("")
		s.Close()
	})
}

// TestSharedRelayTrustsNoOlderStream has an agent leave and come back: another
// relay may have had the device shown something else meanwhile.
func TestSharedRelayTrustsNoOlderStream(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1; c.MaxInFlight = time.Minute }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 5))
		h.accept("", "1=5")
		h.after(time.Minute - 1)
		h.submit(s, count("a", 5))
		h.accept("another relay may have pushed since", "1=5")
		h.after(1)
		h.submit(s, count("a", 5))
		h.accept("the last push was a moment too early to count", "1=5")
		h.submit(s, count("a", 5))
		h.wantPushes("nobody else has pushed since")
		s.Close()
		h.after(time.Millisecond)
		back := h.relay.OpenStream(org, "mx")
		h.submit(back, count("a", 5))
		h.accept("nobody knows where the agent was", "1=5")
		back.Close()
	})
}

// TestSharedRelayTrustsNoYoungRegistration has a device come from another mailbox:
// a relay that has not heard of it may push it the count of that one.
func TestSharedRelayTrustsNoYoungRegistration(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1; c.MaxInFlight = time.Minute }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.after(2 * time.Minute)
		h.submit(s, count("a", 5))
		h.accept("", "1=5")
		h.registry.subscribe(org, "a", phone(2))
		h.submit(s, count("a", 5))
		h.accept("to the device that came", "2=5")
		h.after(time.Minute - 1)
		h.submit(s, count("a", 5))
		h.accept("another relay may have pushed since", "2=5")
		h.after(1)
		h.submit(s, count("a", 5))
		h.accept("the last push was a moment too early to count", "2=5")
		h.submit(s, count("a", 5))
		h.wantPushes("every relay has heard of it since")
		s.Close()
	})
}

func TestUnchangedCostsNoPush(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1; c.ShownFor = time.Hour }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 5))
		h.accept("", "1=5")
		h.wantSettled(s, "through 1")
		h.submit(s, count("a", 5))
		h.wantPushes("the device shows it")
		h.wantSettled(s, "through 2, 2 unchanged")
		h.after(time.Hour)
		h.submit(s, count("a", 5))
		h.accept("APNs' word is too old to trust", "1=5")
		s.Close()
	})
}

func TestRejectedEventsHarmNoOther(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "ok", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("", 1), count(strings.Repeat("x", 257), 1), count("\xff", 1), count("big", MaxUnread+1), count("ok", MaxUnread))
		h.accept("the good one goes", "1=2147483647")
		got := h.wantSettled(s, "through 5, 1 rejected, 2 rejected, 3 rejected, 4 rejected")
		for i, field := range []string{"mailbox", "mailbox", "mailbox", "unread_count"} {
			if o := got.Outcomes[i]; o.Field != field || o.Detail == "" {
				t.Errorf("event %d names field %q and rule %q, want %q and a rule", i+1, o.Field, o.Detail, field)
			}
		}
		s.Close()
	})
}

func TestSettlementRanges(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		for n := range 5 {
			h.registry.subscribe(org, fmt.Sprint("m", n), phone(n))
		}
		s := h.relay.OpenStream(org, "mx")
		for n := range 5 {
			h.submit(s, count(fmt.Sprint("m", n), 1))
		}
		p := h.wantPushes("", "0=1", "1=1", "2=1", "3=1", "4=1")
		h.answer(nil, p[2], p[1], p[4])
		h.wantSettled(s, "through 0, 2-3, 5-5")
		h.answer(nil, p[0])
		h.wantSettled(s, "through 3")
		h.answer(nil, p[3])
		h.wantSettled(s, "through 5")
		h.wantSettled(s, "nothing")
		if n := s.Unreported(); n != 0 {
			t.Errorf("%d events unsettled, want none", n)
		}
		s.Close()
	})
}

func TestClosedStreamsEventsAreAbandoned(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribe(org, "b", phone(2))
		h.pool.setRoom(1)
		s, other := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1), count("b", 1))
		first := h.wantPushes("room for one", "1=1")
		s.Close()
		h.check()
		if l := h.relay.Ledger(); l.Outcomes[OutcomeAbandoned] != 2 || l.Pending != 0 {
			t.Fatalf("abandoned %d, pending %d, want 2 and 0", l.Outcomes[OutcomeAbandoned], l.Pending)
		}
		h.answer(nil, first...)
		h.wantPushes("an abandoned count is not kept alive")
		h.submit(other, count("b", 2))
		h.after(time.Second)
		h.accept("another stream goes on", "2=2")
		h.wantSettled(other, "through 1")
		if err := s.Submit(h.t.Context(), 3, []Event{count("a", 1)}); !errors.Is(err, ErrClosed) {
			t.Errorf("submit on a closed stream: %v, want ErrClosed", err)
		}
		other.Close()
	})
}

// TestNothingOfAClosedStreamGoesOut closes a stream whose counts are held back
// for one reason each: the agent is at another relay, and has newer ones.
func TestNothingOfAClosedStreamGoesOut(t *testing.T) {
	for name, hold := range map[string]func(h *harness, s *Stream){
		"a server error": func(h *harness, s *Stream) {
			h.submit(s, count("a", 1))
			h.answer(unavailable(), h.wantPushes("", "1=1")...)
		},
		"a pause of the device": func(h *harness, s *Stream) {
			h.submit(s, count("a", 1))
			h.answer(tooMany(), h.wantPushes("", "1=1")...)
		},
		"the window": func(h *harness, s *Stream) {
			h.submit(s, count("a", 1))
			h.accept("", "1=1")
			h.submit(s, count("a", 2))
		},
		"no room at APNs": func(h *harness, s *Stream) {
			h.pool.setRoom(0)
			h.submit(s, count("a", 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(c *Config) { c.Window = time.Minute }, func(h *harness) {
				h.registry.subscribe(org, "a", phone(1))
				s := h.relay.OpenStream(org, "mx")
				hold(h, s)
				s.Close()
				h.pool.setRoom(1000)
				h.after(time.Hour)
				h.wantPushes("its agent has left")
			})
		})
	}
	t.Run("a push that was lost", func(t *testing.T) {
		bubble(t, nil, func(h *harness) {
			h.registry.subscribe(org, "a", phone(1))
			s := h.relay.OpenStream(org, "mx")
			h.submit(s, count("a", 1))
			pushes := h.wantPushes("", "1=1")
			s.Close()
			h.answer(lost(), pushes...)
			h.after(time.Hour)
			h.wantPushes("its agent has left")
		})
	})
}

// TestClosedStreamTakesNothingMore closes streams while they submit: no event
// of theirs comes after one of a stream that was opened then.
func TestClosedStreamTakesNothingMore(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		many := make([]Event, 1000)
		for i := range many {
			many[i] = count("a", 1)
		}
		for range 200 {
			s := h.relay.OpenStream(org, "mx")
			done := make(chan struct{})
			go func() { // ends when the batch is taken, or refused
				defer close(done)
				_ = s.Submit(h.t.Context(), 1, many) // ErrClosed, if it came too late
			}()
			runtime.Gosched()
			s.Close()
			next := h.relay.OpenStream(org, "mx")
			if err := next.Submit(h.t.Context(), 1, []Event{count("a", 2)}); err != nil {
				h.t.Fatal(err)
			}
			<-done
			if n := h.relay.Ledger().Pending; n != 1 {
				h.t.Fatalf("%d events are pending, want the newer stream's", n)
			}
			next.Close()
			h.check()
		}
	})
}

func TestPublishSaysWhatIsPending(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribe(org, "b", phone(2))
		h.pool.setRoom(1)
		ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
		defer cancel()
		done := make(chan []EventOutcome)
		go func() {
			outcomes, _ := h.relay.Publish(ctx, org, "mx", []Event{count("a", 1), count("b", 1), count("nobody", 1)})
			done <- outcomes
		}()
		h.accept("room for one", "1=1")
		late := h.wantPushes("the other goes next, and is not answered", "2=1")
		want := []Outcome{OutcomeDelivered, OutcomePending, OutcomeNoSubscription}
		for i, o := range <-done {
			if o.Outcome != want[i] || o.Sequence != uint64(i)+1 {
				t.Errorf("event %d is %v of sequence %d, want %v", i+1, o.Outcome, o.Sequence, want[i])
			}
		}
		h.answer(nil, late...)
		if l := h.relay.Ledger(); l.Pending != 0 || l.Outcomes[OutcomeDelivered] != 2 {
			t.Errorf("the pending event did not go on without its caller: %+v", l)
		}
		h.check()
	})
}

func TestSubscriptionsChange(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1))
		h.wantSettled(s, "through 1, 1 no_subscription")
		h.registry.subscribe(org, "a", phone(1))
		h.submit(s, count("a", 2))
		first := h.wantPushes("a device that subscribed counts at once", "1=2")
		h.registry.subscribe(org, "a", phone(2))
		synctest.Wait()
		second := h.wantPushes("a pending event reaches the device that came meanwhile", "2=2")
		h.answer(nil, first...)
		h.wantSettled(s, "nothing")
		h.answer(nil, second...)
		h.wantSettled(s, "through 2")
		h.registry.subscribe(org, "b", phone(1)) // leaves a
		h.submit(s, count("a", 3), count("b", 9))
		h.accept("each mailbox reaches its own device", "2=3", "1=9")
		h.registry.unsubscribe(org, "a", phone(2))
		h.submit(s, count("a", 4))
		h.wantSettled(s, "through 5, 5 no_subscription")
		s.Close()
	})
}

func TestRegistryFailureHoldsEvents(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.setFails(true)
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1))
		h.after(time.Minute)
		h.submit(s, count("a", 2))
		h.wantPushes("nobody knows the devices")
		h.registry.setFails(false)
		h.after(6 * time.Second)
		h.accept("the newest count when the registry is back", "1=2")
		h.wantSettled(s, "through 2, 1 superseded")
		s.Close()
	})
}

// TestKnownMailboxesGoOnWithoutTheRegistry has the registry away for ten
// minutes: mailboxes in memory go on, also those that were compact meanwhile,
// and what was not known goes out when it is back.
func TestKnownMailboxesGoOnWithoutTheRegistry(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1))
		h.accept("known from now on", "1=1")
		h.registry.subscribe(org, "b", phone(2))
		h.registry.setFails(true)
		for n := uint32(2); n <= 4; n++ {
			h.after(200 * time.Second) // compact in between
			h.submit(s, count("a", n), count("b", n))
			h.accept("the registry is not asked", fmt.Sprint("1=", n))
		}
		h.registry.setFails(false)
		h.after(6 * time.Second)
		h.accept("the newest count when the registry is back", "2=4")
		h.wantSettled(s, "through 7, 3 superseded, 5 superseded")
		s.Close()
	})
}

func TestOneUnreadableMailboxHoldsNoOtherUp(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.after(0) // the warm-up finds nothing
		var events []Event
		h.registry.mu.Lock()
		for i := range 300 {
			name := fmt.Sprint("m", i)
			h.registry.subs[MailboxKey{org, name}] = []Subscription{{App: app, Device: phone(i)}}
			events = append(events, count(name, 1))
		}
		h.registry.broken = MailboxKey{org, "m7"}
		h.registry.mu.Unlock()
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, events...)
		if got := len(h.pool.taken()); got != 299 {
			t.Errorf("%d pushes at once, want those of all but one mailbox", got)
		}
		h.registry.mu.Lock()
		h.registry.broken = MailboxKey{}
		asked := h.registry.lookups
		h.registry.mu.Unlock()
		if asked > 40 { // 300 mailboxes halved down to one, and doubled again
			t.Errorf("%d look-ups for 300 mailboxes", asked)
		}
		h.after(5 * time.Second)
		h.wantPushes("it can be read again", "7=1")
		s.Close()
	})
}

func TestMailboxLimit(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxMailboxes = shards; c.Window = -1 }, func(h *harness) {
		s := h.relay.OpenStream(org, "mx")
		for n := range 4 * shards {
			h.submit(s, count(fmt.Sprint("m", n), 1))
		}
		if n := h.relay.Stats().Mailboxes; n > shards {
			t.Errorf("%d mailboxes in memory, want at most %d", n, shards)
		}
		if n := h.relay.Ledger().Outcomes[OutcomeAbandoned]; n != 0 {
			t.Errorf("%d events abandoned although idle mailboxes could be forgotten", n)
		}
		h.registry.setFails(true)
		for n := range 4 * shards {
			h.submit(s, count(fmt.Sprint("n", n), 1))
		}
		if n := h.relay.Ledger().Outcomes[OutcomeAbandoned]; n == 0 {
			t.Error("no event was abandoned although no mailbox was idle")
		}
		if n := h.relay.Ledger().Outcomes[OutcomeRejected]; n != 0 {
			t.Errorf("%d events rejected: the agent would forget them for our lack of room", n)
		}
		s.Close()
	})
}

// breakerThreshold is how many failures in a row open the breaker of package
// dispatch.
const breakerThreshold = 20

func TestBreakerProbesInAnOutage(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		s := h.relay.OpenStream(org, "mx")
		for n := range 200 {
			h.registry.subscribe(org, fmt.Sprint("m", n), phone(n))
		}
		h.pool.setRoom(10)
		for n := range 200 {
			h.submit(s, count(fmt.Sprint("m", n), 1))
		}
		tried := 0
		for range 60 { // a minute of outage
			got := h.pool.taken()
			tried += len(got)
			h.answer(unavailable(), got...)
			h.after(time.Second)
		}
		if tried < breakerThreshold || tried > breakerThreshold+20 {
			t.Errorf("%d pushes in a minute of outage, want the threshold and single probes", tried)
		}
		if h.relay.Breaker(app).IsZero() {
			t.Error("the breaker is closed in an outage")
		}
		for range 60 {
			h.answer(nil, h.pool.taken()...)
			h.after(time.Second)
		}
		if !h.relay.Breaker(app).IsZero() {
			t.Error("the breaker is open after the outage")
		}
		h.after(20 * time.Minute)
		for h.relay.Ledger().Pending > 0 {
			h.answer(nil, h.pool.taken()...)
		}
		s.Close()
	})
}

// TestRefusedAppWaitsAtThePool has APNs refuse an app again and again. The pool
// takes a push once in a while then, until APNs accepts one: nothing else waits.
func TestRefusedAppWaitsAtThePool(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1))
		for range 2 * breakerThreshold {
			h.answer(&apns.Error{Status: 403, Reason: "InvalidProviderToken"}, h.wantPushes("for the pool to take", "1=1")...)
		}
		if !h.relay.Breaker(app).IsZero() {
			t.Error("the breaker is open: two things throttle the app")
		}
		h.accept("the badge is not lost", "1=1")
		h.wantSettled(s, "through 1")
		s.Close()
	})
}

func TestFairBetweenOrganizations(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.pool.setRoom(0)
		for n := range 100 {
			h.registry.subscribe(1, fmt.Sprint("m", n), phone(n))
		}
		h.registry.subscribe(2, "quiet", phone(250))
		one, two := h.relay.OpenStream(1, "mx"), h.relay.OpenStream(2, "mx")
		for n := range 100 {
			h.submit(one, count(fmt.Sprint("m", n), 1))
		}
		h.submit(two, count("quiet", 1))
		h.pool.setRoom(2)
		synctest.Wait()
		got := h.pool.taken()
		if len(got) != 2 || got[0].Device != phone(250) && got[1].Device != phone(250) {
			t.Error("an organization waits behind another's flood")
		}
		h.answer(nil, got...)
		one.Close()
		two.Close()
	})
}

func TestDrain(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1))
		h.accept("", "1=1")
		h.submit(s, count("a", 2))
		ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
		defer cancel()
		drained := make(chan error, 1)
		go func() { drained <- h.relay.Drain(ctx) }()
		h.accept("the window is cut short", "1=2")
		if err := <-drained; err != nil {
			t.Errorf("drain: %v", err)
		}
		if err := s.Submit(h.t.Context(), 3, []Event{count("a", 3)}); !errors.Is(err, ErrDraining) {
			t.Errorf("submit while draining: %v, want ErrDraining", err)
		}
		s.Close()
	})
}

func TestDrainSaysWhatIsLeft(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 1))
		ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
		defer cancel()
		err := h.relay.Drain(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 events pending") {
			t.Errorf("drain: %v, want the deadline and how many are pending", err)
		}
		s.Close()
	})
}

func TestReaderThatNeverReadsStopsTheStream(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		s := h.relay.OpenStream(org, "mx")
		events := make([]Event, 10_000)
		for i := range events {
			events[i] = count("nobody", uint32(i))
		}
		ctx, cancel := context.WithTimeout(h.t.Context(), time.Hour)
		defer cancel()
		var err error
		batches := 0
		for ; err == nil && batches < 100; batches++ {
			err = s.Submit(ctx, uint64(batches)*10_000+1, events)
		}
		if !errors.Is(err, context.DeadlineExceeded) || batches > 10 {
			t.Errorf("after %d batches that nobody read the outcomes of: %v, want it to block", batches, err)
		}
		s.Close()
	})
}

func TestRegisteringAnewForgetsWhatIsShown(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 7))
		h.accept("", "1=7")
		h.after(time.Minute)
		h.registry.subscribe(org, "a", phone(1)) // signed out and in: the app cleared its badge
		h.submit(s, count("a", 7))
		h.accept("the badge goes out again", "1=7")
		h.submit(s, count("a", 7))
		h.wantPushes("and only once")
		s.Close()
	})
}

// TestRegisteringAnewAfterTheClockWasSet has the registry's clock be an hour behind the
// one that the relay began with.
func TestRegisteringAnewAfterTheClockWasSet(t *testing.T) {
	bubble(t, alone, func(h *harness) {
		register := func() {
			h.registry.mu.Lock()
			h.registry.subs[MailboxKey{org, "a"}] = []Subscription{{App: app, Device: phone(1), RegisteredAt: time.Now().Add(-time.Hour)}}
			h.registry.mu.Unlock()
			h.registry.changed([]MailboxKey{{org, "a"}})
		}
		register()
		h.after(time.Hour)
		s := h.relay.OpenStream(org, "mx")
		defer s.Close()
		h.submit(s, count("a", 7))
		h.accept("", "1=7")
		h.after(30 * time.Minute)
		register()
		h.submit(s, count("a", 7))
		h.accept("the badge goes out again", "1=7")
		h.submit(s, count("a", 7))
		h.wantPushes("and only once")
	})
}

func TestLostPushTakesTheHeldCountAlong(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 7))
		first := h.wantPushes("", "1=7")
		h.submit(s, count("a", 8))
		h.wantPushes("held for the window")
		h.answer(lost(), first...)
		h.accept("the retry carries the newest count", "1=8")
		h.after(2 * time.Second)
		h.wantPushes("nothing is left for the window's end")
		h.wantSettled(s, "through 2, 1 superseded")
		s.Close()
	})
}

// TestLatencyOfTheHeldCount: it is measured from the receipt of the event that the device
// shows, not of the older one whose push was lost.
func TestLatencyOfTheHeldCount(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 7))
		first := h.wantPushes("", "1=7")
		h.after(800 * time.Millisecond)
		h.submit(s, count("a", 8))
		h.after(100 * time.Millisecond)
		h.answer(lost(), first...)
		h.accept("the retry carries the newest count", "1=8")
		if got := time.Duration(h.relay.pushLatency.sum.Load()); got != 100*time.Millisecond {
			t.Errorf("event_push_seconds observed %v, want 100ms", got)
		}
		s.Close()
	})
}

func TestCountUnderAServerErrorDoesNotSlipThroughTheQueue(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.pool.setRoom(1)
		h.submit(s, count("a", 7))
		push := h.wantPushes("", "1=7")
		h.pool.setRoom(-1) // none, even after the answer
		h.answer(unavailable(), push...)
		h.submit(s, count("a", 8))
		h.submit(s, count("a", 7))
		h.pool.setRoom(1)
		h.wantPushes("7 met a 5xx: it waits, although 8 was in the queue meanwhile")
		h.after(20 * time.Minute)
		h.accept("its time has come", "1=7")
		s.Close()
	})
}
