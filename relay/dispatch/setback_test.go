package dispatch

import (
	"testing"
	"time"
)

func soonest(int64) int64 { return 0 }

// TestSetback asks after each answer of APNs' when counts may be sent.
func TestSetback(t *testing.T) {
	const minute = int64(time.Minute)
	const wait = 15 * time.Minute
	var s *Setback
	want := func(why string, count uint32, at int64) {
		t.Helper()
		if got := s.Until(count); got != at {
			t.Errorf("count %d may go at %v, want %v: %s", count, time.Duration(got), time.Duration(at), why)
		}
	}
	want("nothing was asked for", 1, 0)
	s = s.Block(1, "InternalServerError", minute, wait, soonest)
	want("it met a 5xx", 1, 16*minute)
	want("another count did not", 2, 0)
	if s = s.Accepted(2*minute, 2); s == nil {
		t.Fatal("the 5xx is forgotten")
	}
	want("another one was accepted", 1, 16*minute)
	if s = s.Accepted(3*minute, 1); s != nil {
		t.Error("something is left after the count was accepted")
	}

	s = s.Pause("TooManyRequests", minute, 0, soonest)
	want("a pause holds for every count", 7, minute+int64(time.Second))
	s = s.Pause("TooManyRequests", minute, 0, soonest)
	want("the second doubles", 7, minute+int64(2*time.Second))
	s = s.Pause("TooManyRequests", minute, time.Hour, soonest)
	want("APNs names an hour", 7, 61*minute)
	if at, reason := s.At(); at != minute || reason != "TooManyRequests" || !s.Paused(60*minute) || s.Paused(61*minute) {
		t.Errorf("asked at %v with %q, paused %v", time.Duration(at), reason, s.Paused(60*minute))
	}
	for range 20 {
		s = s.Pause("TooManyRequests", minute, 0, soonest)
	}
	want("the longest by itself", 7, 16*minute)
	if s = s.Accepted(20*minute, 7); s != nil {
		t.Error("something is left of a pause")
	}
}

// TestSetbackSaysWhatIsWaitedFor drops a push and accepts another one, beside a count that
// waits after a 5xx.
func TestSetbackSaysWhatIsWaitedFor(t *testing.T) {
	var s *Setback
	s = s.Block(1, "InternalServerError", 1, time.Hour, soonest)
	s = s.Drop("PayloadTooLarge", 2)
	if at, reason := s.At(); at != 2 || reason != "PayloadTooLarge" {
		t.Errorf("APNs said %q last, at %d", reason, at)
	}
	s = s.Accepted(3, 2)
	if _, reason := s.At(); reason != "InternalServerError" {
		t.Errorf("a count waits for %q", reason)
	}
}

// TestSetbackOfManyCountsHoldsForAll refuses nine counts one after the other.
func TestSetbackOfManyCountsHoldsForAll(t *testing.T) {
	var s *Setback
	for n := range uint32(maxBlocked) {
		s = s.Block(n, "InternalServerError", int64(n), time.Hour, soonest)
	}
	if got := s.Until(100); got != 0 {
		t.Errorf("a count that was not refused waits until %v", time.Duration(got))
	}
	s = s.Block(maxBlocked, "InternalServerError", maxBlocked, time.Hour, soonest)
	if got, want := s.Until(100), int64(time.Hour); got != want {
		t.Errorf("after nine refusals another count may go at %v, want %v", time.Duration(got), time.Duration(want))
	}
	if got, want := s.Over(), int64(time.Hour)+maxBlocked; got != want {
		t.Errorf("all may go at %v, want %v", time.Duration(got), time.Duration(want))
	}
	if len(s.blocked) != maxBlocked {
		t.Errorf("%d counts are remembered, want %d", len(s.blocked), maxBlocked)
	}
}
