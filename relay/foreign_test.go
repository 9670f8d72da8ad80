package relay

import (
	"testing"
	"time"

	"badgerelay/apns"
)

// TestForeignAnswers has something on the way answer in APNs' place: no
// subscription ends, no event is told as undeliverable, and each badge comes
// when APNs answers again.
func TestForeignAnswers(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "anna", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("anna", 3))
		foreign := &apns.Error{Status: 410, Reason: apns.ReasonForeignAnswer}
		h.answer(foreign, h.wantPushes("the first goes at once", "1=3")...)
		h.wantSettled(s, "nothing")
		h.wantPushes("the device pauses")
		h.after(time.Second * 5 / 4)
		h.answer(foreign, h.wantPushes("and is tried again", "1=3")...)
		h.after(2 * time.Second)
		h.submit(s, count("anna", 4))
		h.after(time.Second)
		h.accept("with the newest count", "1=4")
		h.wantSettled(s, "through 2, 1 superseded")
		if len(h.registry.removed) > 0 {
			h.t.Errorf("%d subscriptions ended", len(h.registry.removed))
		}
	})
}

// TestForeignAnswerSaysWhenToComeBack: a proxy's retry-after holds.
func TestForeignAnswerSaysWhenToComeBack(t *testing.T) {
	bubble(t, nil, func(h *harness) {
		h.registry.subscribe(org, "anna", phone(1))
		s := h.relay.OpenStream(org, "mx")
		h.submit(s, count("anna", 3))
		h.answer(&apns.Error{Status: 404, Reason: apns.ReasonForeignAnswer, RetryAfter: time.Minute}, h.wantPushes("at once", "1=3")...)
		h.after(time.Minute - time.Millisecond)
		h.wantPushes("not before the minute is over")
		h.after(time.Minute / 4)
		h.accept("then", "1=3")
	})
}
