package relay

import (
	"testing"
	"time"
)

// TestSumOfADisabledOrganization has an event come that the relay takes because it has
// not heard that the organization is disabled. Its device is there all the same: the
// event waits until the organization is enabled, or its stream is ended.
func TestSumOfADisabledOrganization(t *testing.T) {
	shared(t, nil, func(h *harness, ours, theirs *Stream) {
		h.submit(theirs, count("a", 3))
		h.accept("", "1=3")
		h.wantSettled(theirs, "through 1")
		h.registry.disable(org, true)
		h.submit(ours, count("a", 4))
		h.after(5 * time.Second)
		h.answer(nil, h.pool.taken()...)
		h.wantSettled(ours, "nothing")
		h.registry.disable(org, false)
		h.after(2 * exchangePause)
		h.accept("it counts now", "1=7")
		h.wantSettled(ours, "through 1")

		h.registry.disable(org, true)
		h.submit(ours, count("a", 5))
		h.after(5 * time.Second)
		h.accept("what they said before counts nothing", "1=3")
		ours.Close()
		h.wantSettled(ours, "through 2, 2 abandoned")
		h.registry.disable(org, false)
		h.after(2 * exchangePause)
		h.accept("it was stored", "1=8")
	})
}
