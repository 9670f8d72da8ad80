package relay

import (
	"testing"
	"time"

	"badgerelay/apns"
)

func TestWatchIsToldOfEveryAnswer(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "seen", phone(1))
		var told []apns.Reason
		key := MailboxKey{Organization: org, Mailbox: "seen"}
		stop := h.relay.Watch(key, &Watch{TraceID: "abc", Answered: func(a PushAnswer) { told = append(told, a.Reason) }})
		want := func(why string, reasons ...apns.Reason) {
			t.Helper()
			if len(told) != len(reasons) {
				t.Fatalf("%s: told %q, want %q", why, told, reasons)
			}
			for i := range told {
				if told[i] != reasons[i] {
					t.Errorf("%s: told %q, want %q", why, told, reasons)
				}
			}
		}
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("seen", 1))
		h.answer(lost(), h.wantPushes("first", "1=1")...)
		want("lost on the way", apns.ReasonConnectionLost)
		h.answer(nil, h.wantPushes("again", "1=1")...)
		want("accepted", apns.ReasonConnectionLost, "")

		stop()
		stop() // twice is no harm
		h.after(2 * time.Second)
		h.submit(s, count("seen", 3))
		h.accept("nobody watches", "1=3")
		want("after the stop", apns.ReasonConnectionLost, "")
		if n, left := h.relay.watches.count.Load(), len(h.relay.watches.mailboxes); n != 0 || left != 0 {
			t.Errorf("%d watches and %d mailboxes are left", n, left)
		}
		s.Close()
	})
}

func TestTwoWatchesOfOneMailboxStopApart(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "seen", phone(1))
		first, second := 0, 0
		key := MailboxKey{Organization: org, Mailbox: "seen"}
		stopFirst := h.relay.Watch(key, &Watch{Answered: func(PushAnswer) { first++ }})
		stopSecond := h.relay.Watch(key, &Watch{Answered: func(PushAnswer) { second++ }})
		defer stopSecond()
		stopFirst()
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("seen", 1))
		h.accept("one watches", "1=1")
		if first != 0 || second != 1 {
			t.Errorf("told %d and %d times, want 0 and 1", first, second)
		}
		s.Close()
	})
}
