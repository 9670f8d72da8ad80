package relay

import (
	"fmt"
	"testing"
	"time"
)

// TestEqualSumIsNotPushedAgain has two counts of an organization change, in one exchange, and
// their sum stay: the device shows it. It is pushed again where what APNs accepted is no
// proof any more, or where the counts are of two organizations, each of which is told what
// it would be without the other.
func TestEqualSumIsNotPushedAgain(t *testing.T) {
	bubble(t, func(c *Config) { c.Window, c.ShownFor = -1, time.Hour }, func(h *harness) {
		h.registry.subscribe(org, "a", phone(1))
		h.registry.subscribeToo(org, "b", phone(1))
		h.registry.subscribeToo(other, "a", phone(1))
		h.after(time.Second)
		ours, theirs := h.relay.OpenStream(org, "mx"), h.relay.OpenStream(other, "mx")
		total := uint64(0)
		send := func(a, b uint32, more ...func()) {
			h.registry.setApart(true) // so that both go with one exchange
			h.submit(ours, count("a", a), count("b", b))
			for _, f := range more {
				f()
			}
			h.registry.setApart(false)
			h.after(30 * time.Second)
			total += 2
		}
		send(5, 3)
		h.accept("", "1=8")
		h.wantSettled(ours, "through 2")
		send(6, 2)
		h.wantPushes("it shows 8")
		h.wantSettled(ours, "through 4")
		send(6, 2)
		h.wantPushes("it shows 8")
		h.wantSettled(ours, "through 6, 5 unchanged, 6 unchanged")
		send(7, 2)
		h.accept("another sum", "1=9")
		h.wantSettled(ours, "through 8, 8 unchanged")

		h.registry.subscribeToo(org, "a", phone(1))
		h.after(time.Second)
		h.pool.taken()
		send(6, 3)
		h.accept("the app may have cleared its badge", "1=9")
		for i := range uint32(4) { // none of these is a push
			h.after(20 * time.Minute)
			send(5-i, 4+i)
			if i == 2 {
				h.accept("an hour after the last", "1=9")
			} else {
				h.wantPushes("it shows 9")
			}
		}
		h.wantSettled(ours, fmt.Sprint("through ", total))
		send(3, 7, func() { h.submit(theirs, count("a", 4)) })
		h.accept("", "1=14")
		send(4, 7, func() { h.submit(theirs, count("a", 3)) })
		h.accept("each would be pushed alone", "1=14")
		h.pool.setRoom(0)
		send(5, 6)
		h.submit(ours, count("a", 6))
		send(5, 6)
		h.pool.setRoom(10)
		h.accept("what is on its way is not accepted", "1=14")
		ours.Close()
		theirs.Close()
	})
}
