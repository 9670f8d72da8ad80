package relay

import (
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/apns"
)

// keyRefused is what APNs answers where it does not know an app's key.
var keyRefused = &apns.Error{Status: 403, Reason: apns.ReasonInvalidProviderToken}

// refuseAll has APNs refuse the app's key, and the pool take no more.
func (h *harness) refuseAll() int {
	pushes := h.pool.taken()
	h.pool.setRoom(-len(pushes))
	h.answer(keyRefused, pushes...)
	return len(pushes)
}

// acceptEach expects one push of a badge to each of n devices, in any order.
func (h *harness) acceptEach(why string, n int, badge uint32) {
	h.t.Helper()
	synctest.Wait()
	pushes := h.pool.taken()
	for _, push := range pushes {
		if push.Badge != badge {
			h.t.Errorf("badge is %d, want %d: %s", push.Badge, badge, why)
		}
	}
	if len(pushes) != n {
		h.t.Errorf("%d pushes, want %d: %s", len(pushes), n, why)
	}
	h.answer(nil, pushes...)
}

// twoRelays serves shared phones 1 to n with two relays, our agent's and theirs. The
// first one pushes.
func twoRelays(t *testing.T, n int, f func(one, two *harness, ours, theirs *Stream)) {
	synctest.Test(t, func(t *testing.T) {
		registry := newMemoryRegistry()
		for i := range n {
			registry.subscribeToo(org, "a", phone(1+i))
			registry.subscribeToo(other, "a", phone(1+i))
		}
		time.Sleep(time.Millisecond)
		one, two := newSharing(t, registry, "one"), newSharing(t, registry, "two")
		defer one.stop()
		defer two.stop()
		synctest.Wait()
		ours, theirs := one.relay.OpenStream(org, "mx"), two.relay.OpenStream(other, "mx")
		defer ours.Close()
		defer theirs.Close()
		one.submit(ours, count("a", 3))
		one.answer(nil, one.pool.taken()...)
		one.after(2 * time.Minute) // they became shared a while ago
		one.answer(nil, one.pool.taken()...)
		one.after(exchangePause)
		one.wantPushes("all is pushed")
		f(one, two, ours, theirs)
	})
}

// TestSumOfAnAppThatIsRefusedHere has APNs refuse the app's key at the relay that
// pushes. The other one, whose key is good, does from then on.
func TestSumOfAnAppThatIsRefusedHere(t *testing.T) {
	twoRelays(t, 3, func(one, two *harness, ours, theirs *Stream) {
		one.submit(ours, count("a", 5))
		one.refuseAll()
		two.after(3 * exchangePause)
		two.acceptEach("left to it", 3, 5)
		one.after(2 * exchangePause)
		one.wantSettled(ours, "through 2")

		two.submit(theirs, count("a", 4))
		two.acceptEach("it pushes now", 3, 9)
		one.submit(ours, count("a", 6))
		two.after(2 * exchangePause)
		two.acceptEach("", 3, 10)
		one.pool.setRoom(1000)
		one.after(time.Minute)
		one.wantPushes("nothing of it is this relay's")
		one.wantSettled(ours, "through 3")
		two.wantSettled(theirs, "through 1")
	})
}

// TestSumWithoutAWayToAPNs has no push leave the relay that pushes. It waits ten
// seconds before it leaves the sums to the other one.
func TestSumWithoutAWayToAPNs(t *testing.T) {
	twoRelays(t, 1, func(one, two *harness, ours, theirs *Stream) {
		one.pool.setRoom(0)
		one.submit(ours, count("a", 5))
		two.after(stallAfter - 2*exchangePause)
		two.wantPushes("it may be a moment")
		two.after(5 * exchangePause)
		two.accept("left to it", "1=5")
		one.after(exchangePause)
		one.wantSettled(ours, "through 2")
		one.pool.setRoom(1000)
		one.after(exchangePause)
		one.wantPushes("it is the other's")
	})
}

// TestSumIsWantedWhereverItIsInspected: a relay that leaves the push to another one says
// what the device is to show.
func TestSumIsWantedWhereverItIsInspected(t *testing.T) {
	twoRelays(t, 1, func(one, two *harness, ours, theirs *Stream) {
		one.pool.setRoom(0)
		two.submit(theirs, count("a", 4))
		two.after(2 * exchangePause)
		for _, at := range []struct {
			h   *harness
			key MailboxKey
		}{{one, MailboxKey{org, "a"}}, {two, MailboxKey{other, "a"}}} {
			d := at.h.relay.Inspect(at.key, nil).Devices[0]
			if pusher := at.h == one; d.Pusher != pusher || d.Wanted != 7 {
				t.Errorf("relay %s says %+v, want 3 + 4, which relay one pushes", at.h.relay.instance, d)
			}
		}
	})
}

// TestEveryRelayHearsThatADeviceIsSharedNoMore: one that has nothing to do with the push
// does not take the device for shared for ever, and asks for nothing.
func TestEveryRelayHearsThatADeviceIsSharedNoMore(t *testing.T) {
	twoRelays(t, 3, func(one, two *harness, ours, theirs *Stream) {
		for i := range 3 {
			one.registry.unsubscribe(other, "a", phone(1+i))
		}
		for range 90 {
			one.after(time.Second)
			one.answer(nil, one.pool.taken()...)
		}
		two.wantPushes("the other one pushes")
		for _, h := range []*harness{one, two} {
			if n := h.relay.Stats().Shared; n != 0 {
				t.Errorf("relay %s calls %d devices shared, want none", h.relay.instance, n)
			}
		}
		before := one.registry.exchanged()
		one.submit(ours, count("a", 4))
		one.accept("", "1=4", "2=4", "3=4")
		one.after(time.Minute)
		if n := one.registry.exchanged() - before; n != 0 {
			t.Errorf("%d exchanges for devices on one mailbox", n)
		}
	})
}

// TestSumThatIsInFlightIsNotLeft keeps a device whose push is not answered.
func TestSumThatIsInFlightIsNotLeft(t *testing.T) {
	twoRelays(t, 2, func(one, two *harness, ours, theirs *Stream) {
		one.submit(ours, count("a", 5))
		pushes := one.pool.taken()
		one.pool.setRoom(-1)
		one.answer(keyRefused, pushes[0])
		two.after(time.Minute)
		if got := two.pool.taken(); len(got) != 1 || got[0].Device != pushes[0].Device {
			t.Errorf("pushes are %+v, want that of the device that is not in flight", got)
		} else {
			two.answer(nil, got...)
		}
		one.answer(nil, pushes[1])
		one.after(2 * exchangePause)
		one.wantSettled(ours, "through 2")
	})
}

// TestAllRelaysAreRefused has APNs refuse the app everywhere. Each relay tries with one
// device at a time, and with the first that is accepted all sums go out.
func TestAllRelaysAreRefused(t *testing.T) {
	const devices = 50
	twoRelays(t, devices, func(one, two *harness, ours, theirs *Stream) {
		one.submit(ours, count("a", 5))
		tries := 0
		refuse := func() {
			for _, h := range []*harness{one, two} {
				h.pool.setRoom(1)
				synctest.Wait()
				tries += h.refuseAll()
			}
			one.after(5 * time.Second)
		}
		refuse() // the first one had room for all
		tries = 0
		for range 20 {
			refuse()
		}
		if before := one.registry.exchanged(); tries < 20 || tries > 42 || before > 1000 {
			t.Errorf("%d pushes and %d exchanges in 100 s, want single ones", tries, before)
		}
		for range 8 {
			two.pool.setRoom(1000)
			synctest.Wait()
			two.answer(nil, two.pool.taken()...)
			two.after(stallAfter / 2)
		}
		one.wantSettled(ours, "through 2")
		two.submit(theirs, count("a", 1))
		if n := len(two.pool.taken()) + len(one.pool.taken()); n != devices {
			t.Errorf("%d pushes, want all devices", n)
		}
	})
}

// TestAnotherCredentialEndsTheStall gives the only relay that is left another key.
func TestAnotherCredentialEndsTheStall(t *testing.T) {
	twoRelays(t, 2, func(one, two *harness, ours, _ *Stream) {
		one.registry.setApartFrom("two")
		one.submit(ours, count("a", 5))
		one.refuseAll()
		one.after(5 * exchangePause)
		one.relay.SetGeneration(app, 2)
		one.pool.setRoom(1000)
		one.after(3 * exchangePause)
		one.acceptEach("at once", 2, 5)
		one.wantSettled(ours, "through 2")
	})
}
