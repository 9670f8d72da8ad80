package relay

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"badgerelay/apns"
)

// TestRandomHistories plays random events, answers, subscriptions and stream
// ends against the relay. Whatever happened, once APNs accepts again every
// subscribed device shows its mailbox's newest count and every event ended. Some of
// them under the race detector, which makes each take twenty times as long.
func TestRandomHistories(t *testing.T) {
	seeds := uint64(40)
	if raceEnabled {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			bubble(t, nil, func(h *harness) {
				world := &world{h: h, rng: rand.New(rand.NewPCG(seed, 1)), newest: map[string]uint32{},
					mailboxOf: map[apns.DeviceToken]string{}, shown: map[apns.DeviceToken]uint32{}}
				world.stream = h.relay.OpenStream(org, "mx")
				for range 300 {
					world.step()
				}
				world.settle()
			})
		})
	}
}

// world is what a random history has made of mailboxes and devices.
type world struct {
	h         *harness
	rng       *rand.Rand
	stream    *Stream
	newest    map[string]uint32 // by mailbox: the newest count sent
	mailboxOf map[apns.DeviceToken]string
	shown     map[apns.DeviceToken]uint32
	inFlight  []apns.Request
}

func (w *world) step() {
	mailbox := fmt.Sprint("m", w.rng.IntN(6))
	switch n := w.rng.IntN(20); {
	case n < 9:
		w.send(mailbox)
	case n < 14:
		w.answerOne()
	case n < 16:
		w.subscribe(phone(w.rng.IntN(8)), mailbox)
	case n < 17:
		w.h.relay.SubscriptionsChanged([]MailboxKey{{org, mailbox}})
	case n < 18:
		w.reconnect()
	case n < 19:
		w.h.after(time.Duration(w.rng.IntN(1500)) * time.Millisecond)
	default: // long enough for quiet mailboxes to be compacted
		w.h.after(2*compactAfter + time.Duration(w.rng.IntN(10))*time.Second)
	}
	w.inFlight = append(w.inFlight, w.h.pool.taken()...)
}

func (w *world) send(mailbox string) {
	w.newest[mailbox] = uint32(w.rng.IntN(5))
	w.h.submit(w.stream, count(mailbox, w.newest[mailbox]))
}

// subscribe moves a device to a mailbox; its agent then sends the present
// count, as WatchMailboxes tells it to.
func (w *world) subscribe(d apns.DeviceToken, mailbox string) {
	w.mailboxOf[d] = mailbox
	w.h.registry.subscribe(org, mailbox, d)
	w.send(mailbox)
}

// reconnect ends the stream, and sends the newest counts again on another.
func (w *world) reconnect() {
	w.stream.Close()
	w.stream = w.h.relay.OpenStream(org, "mx")
	for mailbox, n := range w.newest {
		w.h.submit(w.stream, count(mailbox, n))
	}
}

// answerOne lets APNs answer one push in flight, in any order and in any way.
func (w *world) answerOne() {
	if len(w.inFlight) == 0 {
		return
	}
	i := w.rng.IntN(len(w.inFlight))
	push := w.inFlight[i]
	w.inFlight = append(w.inFlight[:i], w.inFlight[i+1:]...)
	var err *apns.Error
	switch w.rng.IntN(10) {
	case 0:
		err = unavailable()
	case 1:
		err = tooMany()
	case 2:
		err = lost() // and nobody knows whether it arrived
		if w.rng.IntN(2) == 0 {
			w.shown[push.Device] = push.Badge
		}
	case 3:
		err = unregistered(time.Now().Add(-time.Hour)) // before it registered: it stays
	default:
		w.shown[push.Device] = push.Badge
	}
	w.h.answer(err, push)
}

// settle lets APNs accept everything until nothing is pending, and looks at
// the devices.
func (w *world) settle() {
	w.h.t.Helper()
	const probe = 25 // minutes: a device that was called gone is tried again
	for minute := range 200 {
		if minute > probe && len(w.inFlight) == 0 && w.h.relay.Ledger().Pending == 0 {
			break
		}
		w.inFlight = append(w.inFlight, w.h.pool.taken()...)
		for _, push := range w.inFlight {
			w.shown[push.Device] = push.Badge
			w.h.answer(nil, push)
		}
		w.inFlight = nil
		w.h.after(time.Minute)
	}
	if l := w.h.relay.Ledger(); l.Pending != 0 {
		w.h.t.Errorf("%d events pending at the end", l.Pending)
	}
	for d, mailbox := range w.mailboxOf {
		if got, want := w.shown[d], w.newest[mailbox]; got != want {
			w.h.t.Errorf("device %v shows %d, its mailbox %s has %d", d, got, mailbox, want)
		}
	}
	w.stream.Close()
	if n := w.stream.Unreported(); n != 0 {
		// Every settlement is waiting to be read; none may be missing.
		if got, err := w.stream.Next(w.h.t.Context()); err != nil || got.Through != w.stream.last {
			w.h.t.Errorf("settled through %d of %d: %v", got.Through, w.stream.last, err)
		}
	}
}
