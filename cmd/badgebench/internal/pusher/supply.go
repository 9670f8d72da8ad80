package pusher

import (
	"sync/atomic"

	"badgerelay/apns"
	"badgerelay/cmd/internal/rig/names"
)

// supply is an apns.Source that hands out badges for one device after the
// other, and counts what comes back. Device tokens are made beforehand, so
// that it costs next to nothing.
type supply struct {
	devices []apns.DeviceToken
	next    atomic.Int64 // number of the next push

	left     atomic.Int64 // to hand out
	accepted atomic.Int64
	refused  atomic.Int64
	failure  atomic.Pointer[apns.Error] // the last refusal

	due  atomic.Int64  // results to come until done is told
	done chan struct{} // one slot
}

func newSupply(devices int) *supply {
	s := &supply{devices: make([]apns.DeviceToken, devices), done: make(chan struct{}, 1)}
	for i := range s.devices {
		s.devices[i] = names.Device(i)
	}
	return s
}

// Take implements apns.Source.
func (s *supply) Take(dst []apns.Request) (n, more int) {
	for {
		left := s.left.Load()
		n = int(min(int64(len(dst)), left))
		if n == 0 {
			return 0, 0
		}
		if s.left.CompareAndSwap(left, left-int64(n)) {
			more = int(left) - n
			break
		}
	}
	first := int(s.next.Add(int64(n))) - n
	for i := range dst[:n] {
		at := first + i
		// Counts rise as often as they fall.
		priority := apns.PriorityImmediate
		if at&1 == 1 {
			priority = apns.PriorityPower
		}
		dst[i] = apns.Request{Device: s.devices[at%len(s.devices)], Badge: uint32(at % 1000), Priority: priority, Tag: s}
	}
	return n, more
}

// Done implements apns.Source.
func (s *supply) Done(results []apns.Result) {
	accepted := 0
	for i := range results {
		if results[i].Err == nil {
			accepted++
		} else {
			s.failure.Store(results[i].Err)
		}
	}
	s.accepted.Add(int64(accepted))
	s.refused.Add(int64(len(results) - accepted))
	if s.due.Add(-int64(len(results))) == 0 {
		select {
		case s.done <- struct{}{}:
		default:
		}
	}
}
