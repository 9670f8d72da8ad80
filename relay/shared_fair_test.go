package relay

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
)

// flood is more than any batch or queue takes at once.
const flood = 1000

// floodOfOthers puts many devices on two mailboxes each of the other organization,
// and phone 1, which org has too, last.
func (h *harness) floodOfOthers() (events []Event) {
	for i := range flood {
		mailbox := fmt.Sprint("many", i/400)
		h.registry.subscribeToo(other, mailbox, phone(10+i))
		h.registry.subscribeToo(other, mailbox+"too", phone(10+i))
	}
	for i := range flood/400 + 1 {
		events = append(events, count(fmt.Sprint("many", i), 1), count(fmt.Sprint("many", i, "too"), 1))
	}
	return append(events, count("a", 4))
}

// TestStrangersBacklogAtTheRegistry has another organization's devices wait to be
// exchanged, the one that it shares with ours last among them. Our count goes with
// the next batch.
func TestStrangersBacklogAtTheRegistry(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(ours, count("a", 1))
		h.submit(theirs, count("a", 1))
		h.accept("", "1=1")
		h.accept("", "1=2")
		events := h.floodOfOthers()
		h.registry.setApart(true)
		h.submit(theirs, events...)
		h.submit(ours, count("a", 3))
		batches, found := 0, 0
		h.registry.asked = func(x *ExchangeRequest, _ *ExchangeResult) {
			for i := range x.Devices {
				for _, c := range x.Devices[i].Counts {
					if found == 0 && c.Key.Organization == org {
						found = batches + 1
					}
				}
			}
			if len(x.Devices) > 0 {
				batches++
			}
		}
		h.registry.setApart(false)
		h.after(5 * time.Second)
		if found != 1 || batches < 4 {
			h.t.Errorf("our count went with batch %d of %d, want the first of many", found, batches)
		}
		h.answer(nil, h.pool.taken()...)
		h.wantSettled(ours, "through 2")
	})
}

// TestStrangerComesWithABacklog has another organization's devices wait to be exchanged,
// and one of ours that it comes to last among them. Our count, which waits there for a
// connection, takes our own turns.
func TestStrangerComesWithABacklog(t *testing.T) {
	for name, comes := range map[string]func(h *harness, theirs *Stream){
		"here": func(h *harness, theirs *Stream) {
			h.registry.subscribeUnheard(MailboxKey{other, "new"}, phone(1))
			h.submit(theirs, count("new", 1))
		},
		"before a restart": func(h *harness, _ *Stream) {
			a := h.relay.apps.named(app)
			for i := range flood {
				h.relay.devices.shareIfActive(deviceKey{a, phone(10 + i)})
			}
			h.relay.devices.shareIfActive(deviceKey{a, phone(1)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
				h.registry.subscribe(org, "a", phone(1))
				ours, theirs := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
				h.registry.setApart(true)
				h.pool.setRoom(0)
				h.submit(ours, count("a", 3))
				events := h.floodOfOthers()
				h.submit(theirs, events[:len(events)-1]...)
				comes(h, theirs)
				in := h.batchesWith(phone(1))
				h.registry.setApart(false)
				h.after(5 * time.Second)
				if with, batches := in(); with[0] != 1 || batches < 4 {
					t.Errorf("our count went with batch %d of %d, want the first of many", with[0], batches)
				}
				h.pool.setRoom(10 * flood)
				h.acceptAll()
				h.wantSettled(ours, "through 1")
				ours.Close()
				theirs.Close()
			})
		})
	}
}

// TestBacklogHidesNothing has one organization's devices wait for as long as the registry
// takes them in whole batches: once a second the relay asks for what other relays left
// for it nevertheless.
func TestBacklogHidesNothing(t *testing.T) {
	shared(t, nil, func(h *harness, _, theirs *Stream) {
		events := h.floodOfOthers()
		h.registry.setApart(true)
		h.submit(theirs, events...)
		asked, late, last := 0, 0, time.Now()
		h.registry.whenAsked(func(x *ExchangeRequest, _ *ExchangeResult) {
			switch {
			case x.Due == 0 && time.Since(last) > exchangePause:
				late++
			case x.Due > 0:
				last = time.Now()
			}
			if len(x.Devices) < exchangeBatch/2 {
				return
			}
			if x.Due > 0 {
				asked++
			}
			time.Sleep(2 * time.Second)
		})
		h.registry.setApart(false)
		h.after(10 * time.Second)
		if asked < 2 || late > 0 {
			t.Errorf("asked for what is due with %d of the large batches, which take two seconds each, and %d that came a second after the last did not ask; want some, and none", asked, late)
		}
		h.registry.whenAsked(nil)
		h.after(10 * time.Second)
	})
}

// batchesWith notes which of the batches that are exchanged from now on have a device.
func (h *harness) batchesWith(device apns.DeviceToken) (in func() (with []int, batches int)) {
	var with []int
	batches := 0
	h.registry.whenAsked(func(x *ExchangeRequest, _ *ExchangeResult) {
		if len(x.Devices) > 0 {
			batches++
		}
		if slices.ContainsFunc(x.Devices, func(u SharedUpdate) bool { return u.Device == device }) {
			with = append(with, batches)
		}
	})
	return func() ([]int, int) {
		h.registry.whenAsked(nil)
		return append(with, 0, 0), batches
	}
}

// TestStrangersBacklogBeforeWhatIsRemembered has another organization's devices wait to be
// exchanged, and one of ours come at another relay to a mailbox of theirs that this relay
// remembers the count of. The sum waits for that, and not for their backlog.
func TestStrangersBacklogBeforeWhatIsRemembered(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(ours, count("a", 1))
		h.submit(theirs, count("a", 1))
		h.acceptAll()
		h.registry.setApart(true)
		events := h.floodOfOthers()
		h.submit(theirs, events[:len(events)-1]...)
		h.registry.subscribeUnheard(MailboxKey{other, "many0"}, phone(1))
		h.submit(ours, count("a", 3))
		in := h.batchesWith(phone(1))
		h.registry.setApart(false)
		h.after(5 * time.Second)
		if with, batches := in(); with[1] != 2 || batches < 4 {
			h.t.Errorf("what is remembered went with batch %d of %d, want the second of many", with[1], batches)
		}
		h.acceptAll()
		h.wantSettled(ours, "through 2")
	})
}

// TestStrangersBacklogAfterSilence has a relay not be heard of for so long that it asks who
// pushes, while another organization's devices wait to be exchanged. Our count, which is in
// the sum already, asks in our own turn, though their mailbox was the device's first.
func TestStrangersBacklogAfterSilence(t *testing.T) {
	shared(t, func(c *Config) { c.MaxInFlight = time.Minute }, func(h *harness, ours, theirs *Stream) {
		h.submit(theirs, count("a", 1))
		h.submit(ours, count("a", 1))
		h.acceptAll()
		h.after(2 * time.Minute)
		h.acceptAll() // once more, as it became shared
		h.pool.setRoom(0)
		h.submit(ours, count("a", 3))
		h.registry.setApart(true)
		events := h.floodOfOthers()
		h.submit(theirs, events[:len(events)-1]...)
		h.after(30 * time.Second)
		h.pool.setRoom(10 * flood)
		h.wantPushes("another relay may push by now")
		in := h.batchesWith(phone(1))
		h.registry.setApart(false)
		h.after(5 * time.Second)
		if with, batches := in(); with[0] != 1 || batches < 4 {
			h.t.Errorf("our count asked with batch %d of %d, want the first of many", with[0], batches)
		}
		h.acceptAll()
		h.wantSettled(ours, "through 2")
	})
}

// TestStrangersBacklogFromAnotherRelay has counts wait that another relay stored: many of
// another organization's devices, and behind them one of ours. Ours is in the first batch
// that is exchanged, and so pushed before most of theirs.
func TestStrangersBacklogFromAnotherRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newMemoryRegistry()
		registry.left["gone"] = true
		for i := range flood {
			registry.storeFrom("gone", other, fmt.Sprint("many", i/400), phone(10+i))
		}
		registry.storeFrom("gone", org, "a", phone(10+flood))
		batches, found := 0, 0
		registry.asked = func(x *ExchangeRequest, _ *ExchangeResult) {
			if len(x.Devices) > 0 {
				batches++
			}
			if found == 0 && slices.ContainsFunc(x.Devices, func(u SharedUpdate) bool { return u.Device == phone(10+flood) }) {
				found = batches
			}
		}
		h := newHarnessOn(t, registry, func(c *Config) { c.MaxInFlight, c.Instance = time.Minute, "one" })
		defer h.stop()
		h.pool.setRoom(10 * flood)
		h.after(5 * time.Second)
		pushes := h.pool.taken()
		h.answer(nil, pushes...)
		if found != 1 || batches < flood/exchangeBatch || len(pushes) != flood+1 {
			t.Errorf("ours was in batch %d of %d, of %d pushes; want it in the first of many, and %d", found, batches, len(pushes), flood+1)
		}
	})
}

// TestStrangersBacklogAtAPNs has another organization's pushes wait for a
// connection, that of the device that it shares with ours last among them. Our count
// takes our own turn.
func TestStrangersBacklogAtAPNs(t *testing.T) {
	for _, oursFirst := range []bool{false, true} {
		shared(t, nil, func(h *harness, ours, theirs *Stream) {
			h.submit(ours, count("a", 1))
			h.accept("", "1=1")
			for i := range flood {
				h.registry.subscribe(other, "many", phone(10+i))
			}
			h.pool.setRoom(0)
			if oursFirst { // what follows changes the sum last
				h.registry.subscribe(org, "filler", phone(2))
				h.submit(ours, count("filler", 1))
			}
			h.submit(theirs, count("many", 1))
			if oursFirst {
				h.submit(ours, count("a", 3))
				h.submit(theirs, count("a", 4))
			} else {
				h.submit(theirs, count("a", 4))
				h.submit(ours, count("a", 3))
			}
			h.pool.setRoom(5)
			synctest.Wait()
			found := false
			for _, req := range h.pool.taken() {
				if req.Device == phone(1) {
					found = true
					h.answer(nil, req)
				}
			}
			if !found {
				h.t.Error("our count waits for the other organization's backlog")
			}
			h.pool.setRoom(10 * flood)
			synctest.Wait()
			h.answer(nil, h.pool.taken()...)
		})
	}
}

// TestQueuedDeviceIsSharedAndAloneAgain changes what a device shows while it waits
// for a connection.
func TestQueuedDeviceIsSharedAndAloneAgain(t *testing.T) {
	bubble(t, func(c *Config) { c.Window = -1 }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribe(org, "b", phone(2))
		s, theirs := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
		h.pool.setRoom(0)
		for round := range uint32(4) {
			h.submit(s, count("b", round), count("a", 10+round))
			h.registry.subscribeToo(other, "a", phone(1))
			h.submit(theirs, count("a", 5))
			h.registry.unsubscribe(other, "a", phone(1))
			h.after(3 * exchangePause)
			h.pool.setRoom(1)
			synctest.Wait()
			h.pool.setRoom(0)
			h.answer(nil, h.pool.taken()...)
			h.after(3 * exchangePause)
		}
		h.pool.setRoom(100)
		for range 10 {
			synctest.Wait()
			h.answer(nil, h.pool.taken()...)
			h.after(exchangePause)
		}
		h.submit(s, count("a", 20), count("b", 21))
		h.accept("each once", "1=20", "2=21")
		s.Close()
		theirs.Close()
	})
}

// TestOldAnswerDoesNotUnshare has a device become shared while an exchange that says
// that it is not is under way.
func TestOldAnswerDoesNotUnshare(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(ours, count("a", 3))
		h.submit(theirs, count("a", 4))
		h.accept("", "1=3")
		h.accept("", "1=7")
		once := false
		h.registry.asked = func(_ *ExchangeRequest, result *ExchangeResult) {
			if once || len(result.Devices) == 0 || result.Devices[0].Shared {
				return
			}
			once = true
			h.registry.mu.Lock() // it comes to a mailbox at another relay before the answer is read
			key := MailboxKey{other, "elsewhere"}
			h.registry.subs[key] = []Subscription{{App: app, Device: phone(1), RegisteredAt: time.Now()}}
			d := &SharedDevice{DeviceKey: DeviceKey{app, phone(1)}}
			d.Merge(&SharedUpdate{Counts: []ReceivedCount{{key, 4, time.Now()}}}, ExchangeTerms{
				Relay: "another", Now: time.Now(), ShownFor: time.Hour, Live: h.registry.live(d.DeviceKey)})
			h.registry.shared[d.DeviceKey] = d
			h.registry.mu.Unlock()
			h.registry.shares([]DeviceKey{d.DeviceKey})
		}
		h.registry.unsubscribe(other, "a", phone(1))
		h.after(exchangePause)
		h.accept("", "1=3")
		h.after(exchangePause)
		h.answer(nil, h.pool.taken()...)
		if !once {
			h.t.Fatal("nothing was said not to be shared")
		}
		h.submit(ours, count("a", 1))
		h.accept("the sum", "1=5")
	})
}

// TestSumOfAQuietMailboxElsewhere has a device become shared at one relay while the
// count of its first mailbox is remembered by another.
func TestSumOfAQuietMailboxElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newMemoryRegistry()
		registry.subscribe(org, "a", phone(1))
		one, two := newSharing(t, registry, "one"), newSharing(t, registry, "two")
		defer one.stop()
		defer two.stop()
		synctest.Wait()
		ours, theirs := one.relay.OpenStream(org, "mx"), two.relay.OpenStream(other, "mx")
		defer ours.Close()
		defer theirs.Close()
		one.submit(ours, count("a", 3))
		one.accept("", "1=3")
		one.after(3 * compactAfter)
		registry.add(other, "x", phone(1))
		two.submit(theirs, count("x", 4))
		two.after(2 * time.Second)
		var last []apns.Request
		for range 4 {
			for _, h := range []*harness{one, two} {
				pushes := h.pool.taken()
				last = append(last, pushes...)
				h.answer(nil, pushes...)
			}
			two.after(time.Second)
		}
		if len(last) == 0 || last[len(last)-1].Badge != 7 {
			t.Fatalf("pushes are %+v, want 7 last", last)
		}
	})
}

// TestSumHoldsTheNewestOfTwoRememberedCounts has an agent move from one relay to another.
// When the device becomes shared, the first one brings the old count that it remembers, and
// the second one the newer.
func TestSumHoldsTheNewestOfTwoRememberedCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newMemoryRegistry()
		registry.subscribe(org, "a", phone(1))
		one, two := newSharing(t, registry, "one"), newSharing(t, registry, "two")
		defer one.stop()
		defer two.stop()
		synctest.Wait()
		for _, at := range []struct {
			*harness
			count uint32
		}{{one, 3}, {two, 5}} {
			s := at.relay.OpenStream(org, "mx")
			at.submit(s, count("a", at.count))
			at.accept("", fmt.Sprint("1=", at.count))
			s.Close()
			at.after(3 * compactAfter)
		}
		theirs := one.relay.OpenStream(other, "mx")
		defer theirs.Close()
		registry.add(other, "x", phone(1))
		one.submit(theirs, count("x", 4))
		var last []apns.Request
		for range 4 {
			one.after(2 * time.Second)
			for _, h := range []*harness{one, two} {
				pushes := h.pool.taken()
				last = append(last, pushes...)
				h.answer(nil, pushes...)
			}
		}
		if len(last) == 0 || last[len(last)-1].Badge != 9 {
			t.Fatalf("pushes are %+v, want 9 last", last)
		}
	})
}

// TestDeviceIsInAnExchangeOnce has a device wait in the turns of two organizations, and
// be touched between the two. What came then goes with the next exchange.
func TestDeviceIsInAnExchangeOnce(t *testing.T) {
	r := &Relay{}
	r.exchanger.begin(r)
	d := &device{app: &appState{relay: r}, mu: new(sync.Mutex), shared: &sharedState{}}
	d.touch(org)
	d.touch(other)
	queued := r.exchanger.queue.Next(nil, exchangeBatch)
	if len(queued) != 2 {
		t.Fatalf("it waits in %d turns, want 2", len(queued))
	}
	var batch []*device
	for _, q := range queued {
		batch = beginExchanges([]queuedExchange{q}, batch)
		d.touch(other)
	}
	if len(batch) != 1 {
		t.Errorf("it is in one exchange %d times", len(batch))
	}
	d.shared.exchanging = false // the exchange has ended
	if batch = beginExchanges(r.exchanger.queue.Next(nil, exchangeBatch), nil); len(batch) != 1 {
		t.Errorf("it is %d times in the next exchange, want once", len(batch))
	}
}
