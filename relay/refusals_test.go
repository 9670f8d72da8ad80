package relay

import (
	"fmt"
	"testing"
	"time"

	"badgerelay/apns"
)

const day = 24 * time.Hour

// crowd subscribes devices of an organization, each on a mailbox of its own, and
// returns an event for each.
func (h *harness) crowd(o OrganizationID, first, n int) (events []Event) {
	for i := range n {
		name := fmt.Sprintf("m%05d", first+i)
		h.registry.subscribe(o, name, phone(first+i))
		events = append(events, count(name, 1))
	}
	return events
}

// answerAll answers everything in flight, and what goes out for it, until nothing
// is. It returns how many pushes there were.
func (h *harness) answerAll(of func(apns.DeviceToken) *apns.Error) (pushes int) {
	h.t.Helper()
	h.after(time.Second)
	for {
		taken := h.pool.taken()
		if len(taken) == 0 {
			return pushes
		}
		pushes += len(taken)
		for _, push := range taken {
			h.pool.answer(of(push.Device), []apns.Request{push})
		}
		h.after(0)
	}
}

func everybody(err *apns.Error) func(apns.DeviceToken) *apns.Error {
	return func(apns.DeviceToken) *apns.Error { return err }
}

// next counts every event up by one.
func next(events []Event) []Event {
	for i := range events {
		events[i].Unread++
	}
	return events
}

// TestWrongEnvironment refuses every device of an app, as APNs does when its
// environment or topic is mistyped; after that is put right every badge comes.
func TestWrongEnvironment(t *testing.T) {
	for _, reason := range []apns.Reason{"BadDeviceToken", "DeviceTokenNotForTopic"} {
		bubble(t, alone, func(h *harness) {
			var asked int
			h.relay.recount = func(keys []MailboxKey) { asked += len(keys) }
			events := append(h.crowd(1, 0, 2000), h.crowd(1, 2000, 100)...)
			s := h.relay.OpenStream(1, "mx")
			defer s.Close()
			refuse := everybody(&apns.Error{Status: 400, Reason: reason})
			h.submit(s, events...)
			if pushes := h.answerAll(refuse); pushes != 2100 {
				t.Errorf("%d pushes to 2100 devices", pushes)
			}
			for range 20 { // more than an hour of counts
				h.after(4 * time.Minute)
				h.submit(s, next(events)...)
				if pushes := h.answerAll(refuse); pushes != 0 {
					t.Fatalf("%d pushes to devices in quarantine", pushes)
				}
			}
			if l := h.relay.Ledger(); l.Outcomes[OutcomeUndeliverable] != l.Accepted {
				t.Errorf("ledger %+v, want all settled as undeliverable", l)
			}
			if health := h.relay.Health(app); !health.Misconfigured || health.Quarantined != 2100 || health.Since.IsZero() {
				t.Errorf("health %+v, want it misconfigured", health)
			}
			h.after(day)
			h.submit(s, next(events)...)
			h.answerAll(refuse)
			if n := len(h.registry.removed); n != 0 {
				t.Fatalf("%d subscriptions ended by a mistake", n)
			}

			h.relay.SetGeneration(app, 2)
			if health := h.relay.Health(app); health.Misconfigured || asked != 2100 {
				t.Errorf("health %+v, and %d counts asked for", health, asked)
			}
			h.submit(s, next(events)...)
			if pushes := h.answerAll(everybody(nil)); pushes != 2100 {
				t.Errorf("%d badges shown after it was put right", pushes)
			}
			if health := h.relay.Health(app); health != (Health{Accepted: 2100}) {
				t.Errorf("health %+v", health)
			}
		})
	}
}

// TestRestartsAmidMisconfiguration starts relays one after the other on what the
// one before left: each knows at once, and none destroys anything.
func TestRestartsAmidMisconfiguration(t *testing.T) {
	if tooLongUnderRace(t) {
		return
	}
	registry := newMemoryRegistry()
	bad := everybody(badToken())
	for life := range 6 {
		bubbleOn(t, registry, nil, func(h *harness) {
			time.Sleep(time.Duration(life) * 12 * time.Hour) // every bubble begins at the same time
			h.after(healthTurn)
			if life == 0 {
				h.crowd(1, 0, 50)
			}
			if health := h.relay.Health(app); health.Misconfigured != (life > 0) {
				t.Errorf("life %d begins with %+v", life, health)
			}
			var events []Event
			for i := range 50 {
				events = append(events, count(fmt.Sprintf("m%05d", i), uint32(life)))
			}
			s := h.relay.OpenStream(1, "mx")
			defer s.Close()
			h.submit(s, events...)
			h.answerAll(bad)
			if n := len(registry.removed); n > 0 {
				t.Fatalf("life %d: %d subscriptions ended", life, n)
			}
			if health := h.relay.Health(app); !health.Misconfigured {
				t.Errorf("life %d ends with %+v", life, health)
			}
		})
	}
}

// TestRestartOfAnAppThatIsWell has dead devices in quarantine, none of which says
// anything about the app.
func TestRestartOfAnAppThatIsWell(t *testing.T) {
	registry := newMemoryRegistry()
	registry.accepted[1] = 5000
	for i := range 100 {
		registry.subs[MailboxKey{org, fmt.Sprint("m", i)}] = []Subscription{{App: app, Device: phone(i + 1), Quarantine: &Quarantine{Generation: 1, Reason: "BadDeviceToken", Refusals: 1}}}
	}
	bubbleOn(t, registry, nil, func(h *harness) {
		h.after(time.Hour)
		if health := h.relay.Health(app); health.Misconfigured || health.Quarantined != 0 && health.Quarantined != 100 {
			t.Errorf("health %+v", health)
		}
	})
}

// TestRestartOfAMisconfiguredApp has events meet the quarantines of a relay before, while
// it reads all subscriptions: it says at once what is wrong.
func TestRestartOfAMisconfiguredApp(t *testing.T) {
	registry := newMemoryRegistry()
	registry.scanned = func() { time.Sleep(time.Minute) }
	began := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // as in every bubble
	var events []Event
	for i := range 100 {
		mailbox := fmt.Sprint("m", i)
		registry.subs[MailboxKey{org, mailbox}] = []Subscription{{App: app, Device: phone(i + 1), RegisteredAt: began.Add(-time.Hour), Quarantine: &Quarantine{
			Generation: 1, Reason: "BadDeviceToken", Since: began, RefusedAt: began, Refusals: 1, Registered: began}}}
		events = append(events, count(mailbox, 1))
	}
	bubbleOn(t, registry, nil, func(h *harness) {
		h.after(time.Second)
		s := h.relay.OpenStream(org, "mx")
		defer s.Close()
		h.submit(s, events...)
		h.after(time.Second)
		if health := h.relay.Health(app); !health.Misconfigured || health.Quarantined != 100 {
			t.Errorf("health %+v", health)
		}
	})
}

// TestDeadDevicesLeave has a few dead devices among many that live.
func TestDeadDevicesLeave(t *testing.T) {
	bubble(t, alone, func(h *harness) {
		events := h.crowd(1, 0, 100)
		dead := func(d apns.DeviceToken) *apns.Error {
			for i := range 4 {
				if d == phone(i) {
					return badToken()
				}
			}
			return nil
		}
		s := h.relay.OpenStream(1, "mx")
		defer s.Close()
		h.submit(s, events...)
		h.answerAll(dead)
		h.after(day - time.Minute)
		h.submit(s, next(events)...)
		if pushes := h.answerAll(dead); pushes != 96 {
			t.Errorf("%d pushes, want none to the quarantined yet", pushes)
		}
		if len(h.registry.removed) > 0 {
			t.Fatal("a device was removed within a day")
		}
		h.after(time.Minute)
		h.submit(s, next(events)...)
		h.answerAll(dead)
		if len(h.registry.removed) != 4 || h.relay.Health(app).Quarantined != 0 {
			t.Errorf("%d removed, health %+v; want the four dead ones gone after a day and two refusals", len(h.registry.removed), h.relay.Health(app))
		}
	})
}

// TestSmallAppOfDeadDevices has nobody alive to compare with: the dead leave
// after 30 days, a few an hour.
func TestSmallAppOfDeadDevices(t *testing.T) {
	if tooLongUnderRace(t) {
		return
	}
	bubble(t, alone, func(h *harness) {
		events := h.crowd(1, 0, 8)
		s := h.relay.OpenStream(1, "mx")
		defer s.Close()
		for d := 0; d < 30; d++ {
			h.submit(s, next(events)...)
			if pushes := h.answerAll(everybody(badToken())); pushes != 8 {
				t.Fatalf("day %d: %d pushes, want one a device", d, pushes)
			}
			h.after(day)
		}
		if len(h.registry.removed) > 0 {
			t.Fatalf("%d removed within 30 days", len(h.registry.removed))
		}
		for range 3 {
			h.submit(s, next(events)...)
			h.answerAll(everybody(badToken()))
			h.after(day)
		}
		if len(h.registry.removed) != 8 || h.relay.Health(app).RemovalsPutOff != 3 {
			t.Errorf("%d removed, %+v; want all, and three of them a day later", len(h.registry.removed), h.relay.Health(app))
		}
	})
}

// TestBogusImport has an organization import tokens that are nobody's into an app
// that another one uses as well.
func TestBogusImport(t *testing.T) {
	if tooLongUnderRace(t) {
		return
	}
	bubble(t, alone, func(h *harness) {
		bogus, good := h.crowd(1, 0, 1000), h.crowd(2, 2000, 60)
		answer := func(d apns.DeviceToken) *apns.Error {
			for i := 2000; i < 2058; i++ {
				if d == phone(i) {
					return nil
				}
			}
			return badToken()
		}
		a, b := h.relay.OpenStream(1, "mx"), h.relay.OpenStream(2, "mx")
		defer a.Close()
		defer b.Close()
		for range 3 {
			h.submit(a, next(bogus)...)
			h.submit(b, next(good)...)
			h.answerAll(answer)
			if health := h.relay.Health(app); health.Misconfigured {
				t.Fatalf("one organization's tokens make the app misconfigured: %+v", health)
			}
			h.after(day)
		}
		if n := len(h.registry.removed); n != 2 || h.registry.removed[0].Key.Organization != 2 {
			t.Errorf("removed %d, want the two dead devices of the other organization", n)
		}
	})
}

// TestGoneDevicesAreTriedTwice has devices that APNs calls gone since before they
// registered, as of imported lists: each event settles at once, and they leave.
func TestGoneDevicesAreTriedTwice(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		events := h.crowd(1, 0, 300)
		since := time.Now().Add(-day)
		s := h.relay.OpenStream(1, "mx")
		defer s.Close()
		pushes := 0
		for range 60 { // seconds
			h.submit(s, next(events)...)
			pushes += h.answerAll(everybody(unregistered(since)))
		}
		if l := h.relay.Ledger(); pushes != 300 || l.Pending != 0 {
			t.Errorf("%d pushes to 300 dead devices in a minute, %d events pending", pushes, l.Pending)
		}
		for range 63 { // minutes; no event comes
			h.after(time.Minute)
			pushes += h.answerAll(everybody(unregistered(since)))
		}
		if pushes != 900 || len(h.registry.removed) != 15 {
			t.Errorf("%d pushes, %d removed; want three to each device and an hour's budget", pushes, len(h.registry.removed))
		}
	})
}

// TestGoneByMistake has APNs take a device again that it called gone.
func TestGoneByMistake(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		defer s.Close()
		h.submit(s, count("a", 3))
		h.answer(unregistered(time.Now().Add(-day)), h.wantPushes("", "1=3")...)
		h.wantSettled(s, "through 1, 1 undeliverable")
		h.after(time.Minute)
		h.submit(s, count("a", 4))
		h.wantSettled(s, "through 2, 2 undeliverable")
		h.after(20*time.Minute - time.Minute - time.Millisecond)
		h.wantPushes("not yet")
		h.after(time.Millisecond)
		h.accept("tried again with the newest count", "1=4")
		h.after(time.Hour)
		h.wantPushes("it is shown")
		if q := h.registry.subs[MailboxKey{org, "a"}][0].Quarantine; q != nil {
			t.Errorf("the registry remembers %+v", q)
		}
	})
}

// TestGoneByMistakeAndRestarted restarts the relay while a device that was called gone
// waits to be tried again.
func TestGoneByMistakeAndRestarted(t *testing.T) {
	registry := newMemoryRegistry()
	bubbleOn(t, registry, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("a", 3))
		h.answer(unregistered(time.Now().Add(-day)), h.wantPushes("", "1=3")...)
		h.after(time.Minute)
		s.Close()
		h.stop()
		registry.tellNobody()

		next := newHarnessOn(h.t, registry, nil)
		defer next.stop()
		next.after(time.Minute) // it reads the registry
		s = next.relay.OpenStream(org, "mx")
		defer s.Close()
		next.submit(s, count("a", 4)) // the agent counts anew
		next.wantSettled(s, "through 1, 1 undeliverable")
		next.after(20 * time.Minute)
		next.accept("tried again with the newest count", "1=4")
	})
}

// TestGoneAndNobodyToAsk has no agent be connected when a device that was called gone is
// to be tried: its organization may be disabled, which no relay is to push for.
func TestGoneAndNobodyToAsk(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s, strangers := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
		defer strangers.Close()
		h.submit(s, count("a", 3))
		h.answer(unregistered(time.Now().Add(-day)), h.wantPushes("", "1=3")...)
		h.wantSettled(s, "through 1, 1 undeliverable")
		s.Close()
		h.after(day)
		h.wantPushes("nobody is connected")
		s = h.relay.OpenStream(org, "mx")
		defer s.Close()
		h.submit(s, count("a", 5))
		h.accept("tried with the next count", "1=5")
	})
}

// TestGoneByMistakeAmongSeveralRelays: another one may have a newer count, so
// the agent is asked for it.
func TestGoneByMistakeAmongSeveralRelays(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxInFlight = time.Minute }, func(h *harness) {
		var asked []MailboxKey
		h.relay.recount = func(keys []MailboxKey) { asked = append(asked, keys...) }
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		defer s.Close()
		h.submit(s, count("a", 3))
		h.answer(unregistered(time.Now().Add(-day)), h.wantPushes("", "1=3")...)
		h.after(20 * time.Minute)
		h.wantPushes("nothing that may be old")
		if len(asked) != 1 {
			t.Errorf("asked for %v", asked)
		}
		h.submit(s, count("a", 3))
		h.accept("as the agent says", "1=3")
	})
}

// TestRegistrationWhileThePushIsOut: what was refused is the registration before.
func TestRegistrationWhileThePushIsOut(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		defer s.Close()
		h.submit(s, count("a", 1))
		h.accept("it was accepted once, so that a refusal ends it", "1=1")
		h.after(time.Minute)
		h.submit(s, count("a", 2))
		out := h.wantPushes("", "1=2")
		h.registry.subscribe(org, "a", phone(1))
		h.after(time.Second) // the relay has read of it
		h.answer(badToken(), out...)
		h.accept("and is pushed at once", "1=2")
		if len(h.registry.removed) > 0 {
			t.Error("the newer registration was removed")
		}
	})
}

// TestRemovalIsReadBeforeItIsAnswered has the relay hear of a removal by the
// change feed before it hears what became of its refusal: the event is told so
// all the same.
func TestRemovalIsReadBeforeItIsAnswered(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.slow = time.Second
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		defer s.Close()
		h.submit(s, count("a", 1))
		h.answer(unregistered(time.Now().Add(time.Hour)), h.wantPushes("", "1=1")...)
		h.wantSettled(s, "nothing")
		h.after(500 * time.Millisecond)
		h.submit(s, count("a", 2)) // the mailbox has been read anew, without the device
		h.after(500 * time.Millisecond)
		got := h.wantSettled(s, "through 2, 1 superseded, 2 undeliverable")
		if r := got.Outcomes[1].Refused; len(r) != 1 || !r[0].Removed {
			t.Errorf("the event is told %+v", r)
		}
		h.submit(s, count("a", 3))
		h.wantSettled(s, "through 3, 3 no_subscription")
	})
}

// TestProbesCountForNothing pushes to the device that can't be, again and again.
func TestProbesCountForNothing(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		s := h.relay.OpenStream(org, "mx")
		defer s.Close()
		for n := range uint32(100) {
			h.registry.subscribe(org, "probe", apns.ImpossibleDevice())
			h.submit(s, count("probe", n))
			h.answer(badToken(), h.pool.taken()...)
			h.after(time.Second)
		}
		if n := len(h.registry.subs[MailboxKey{org, "probe"}]); n > 0 || len(h.registry.removed) != 100 {
			t.Errorf("%d subscriptions left, %d removed", n, len(h.registry.removed))
		}
		if health := h.relay.Health(app); health != (Health{}) || h.relay.apps.named(app).doubtful() {
			t.Errorf("health %+v", health)
		}
	})
}

// TestProbeAfterTheClockWasSet has the registry's clock be a month ahead of the one that
// the relay began with: a device that is called gone is tried after 20 minutes
// nevertheless, however often its mailbox is read anew.
func TestProbeAfterTheClockWasSet(t *testing.T) {
	bubble(t, alone, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		s := h.relay.OpenStream(org, "mx")
		defer s.Close()
		h.submit(s, count("a", 3))
		h.answer(unregistered(time.Now().Add(-day)), h.wantPushes("", "1=3")...)
		h.wantSettled(s, "through 1, 1 undeliverable")
		h.registry.mu.Lock()
		sub := &h.registry.subs[MailboxKey{org, "a"}][0]
		q := *sub.Quarantine
		q.RefusedAt, q.Since = q.RefusedAt.Add(30*day), q.Since.Add(30*day)
		sub.Quarantine = &q
		h.registry.mu.Unlock()
		for n := range uint32(19) {
			h.registry.changed([]MailboxKey{{org, "a"}})
			h.submit(s, count("a", 4+n))
			h.wantPushes("not yet")
			h.after(time.Minute)
		}
		h.after(2 * time.Minute)
		h.accept("the probe", "1=22")
	})
}

// TestQuarantineAtRest has mailboxes compacted and activated: what is remembered
// of refusals goes along, and the counts stay.
func TestQuarantineAtRest(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		events := h.crowd(1, 0, 30)
		s := h.relay.OpenStream(1, "mx")
		defer s.Close()
		h.submit(s, events...)
		h.answerAll(everybody(badToken()))
		for range 3 {
			h.after(3 * compactAfter)
			if got := h.relay.Stats().Idle; got != 30 {
				t.Fatalf("%d are compact", got)
			}
			if got := h.relay.Health(app).Quarantined; got != 30 {
				t.Errorf("%d in quarantine while compact", got)
			}
			h.submit(s, next(events)...)
			h.wantPushes("held after it was compact too")
			if got := h.relay.Health(app).Quarantined; got != 30 {
				t.Errorf("%d in quarantine after that", got)
			}
		}
		h.after(3 * compactAfter)
		for i := range 30 {
			h.registry.unsubscribe(1, fmt.Sprintf("m%05d", i), phone(i))
		}
		h.submit(s, next(events)...)
		h.after(healthTurn)
		if got := h.relay.Health(app); got.Quarantined != 0 || got.Misconfigured {
			t.Errorf("%+v when nobody is left", got)
		}
	})
}

// TestReturnToAnEarlierGeneration has a configuration changed and changed back. What was
// refused with it before is in force once more, and counts until it is lifted.
func TestReturnToAnEarlierGeneration(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		events := h.crowd(1, 0, 30)
		s := h.relay.OpenStream(1, "mx")
		defer s.Close()
		h.submit(s, events...)
		h.answerAll(everybody(badToken()))
		quarantined := func(want int, why string) {
			t.Helper()
			h.after(time.Second)
			if got := h.relay.Health(app).Quarantined; got != want {
				t.Errorf("%d in quarantine, want %d: %s", got, want, why)
			}
		}
		quarantined(30, "refused")
		h.relay.SetGeneration(app, 2)
		quarantined(0, "what they were refused with is not pushed with")
		h.relay.SetGeneration(app, 1)
		quarantined(30, "it is again")
		h.submit(s, next(events)...)
		h.wantPushes("they are held")
		h.registry.subscribe(1, "m00000", phone(0)) // which lifts one
		quarantined(29, "registered anew")
		h.after(3 * compactAfter)
		h.relay.SetGeneration(app, 3)
		quarantined(0, "compact too")
		h.relay.SetGeneration(app, 1)
		quarantined(29, "compact too")
	})
}

// TestADeviceIsAcceptedOnce has one device accepted again and again, its mailboxes compact
// in between. It is one distinct device, on however many mailboxes it is.
func TestADeviceIsAcceptedOnce(t *testing.T) {
	for _, mailboxes := range [][]string{{"a"}, {"a", "b"}} {
		bubble(t, alone, func(h *harness) {
			for _, mailbox := range mailboxes {
				h.registry.subscribeToo(org, mailbox, phone(1))
			}
			s := h.relay.OpenStream(org, "mx")
			defer s.Close()
			h.after(time.Second)
			for i := range uint32(10) {
				for _, mailbox := range mailboxes {
					h.submit(s, count(mailbox, 1+i))
					h.answerAll(everybody(nil))
					h.answerAll(everybody(nil)) // at the window's end
				}
				h.after(3 * compactAfter)
				if got := h.relay.Stats().Idle; got != len(mailboxes) {
					t.Fatalf("%d mailboxes are compact, want %d", got, len(mailboxes))
				}
			}
			if got := h.relay.Health(app).Accepted; got != 1 {
				t.Errorf("APNs accepted %d distinct devices, want the one on %q", got, mailboxes)
			}
		})
	}
}

// TestAnsweredByAnother has another one than APNs refuse devices that APNs had
// accepted before: they are in doubt, not gone at once.
func TestAnsweredByAnother(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		events := h.crowd(1, 0, 400)
		s := h.relay.OpenStream(1, "mx")
		defer s.Close()
		h.submit(s, events...)
		h.answerAll(everybody(nil))
		h.after(2 * time.Hour)
		h.submit(s, next(events)...)
		h.answerAll(everybody(badToken()))
		if n := len(h.registry.removed); n > 20 {
			t.Errorf("%d removed, more than an hour's budget", n)
		}
		first := len(h.registry.removed)
		for range 30 {
			h.after(30 * time.Minute)
			h.submit(s, next(events)...)
			h.answerAll(everybody(badToken()))
		}
		if n := len(h.registry.removed); n > first {
			t.Errorf("%d more removed while next to nobody is accepted", n-first)
		}
	})
}

// tooLongUnderRace reports whether days are played without the race detector alone, which
// makes each take twenty times as long. What they do is raced by the tests of an hour.
func tooLongUnderRace(t *testing.T) bool {
	t.Helper()
	if raceEnabled {
		t.Log("played without the race detector")
	}
	return raceEnabled
}
