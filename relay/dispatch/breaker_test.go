package dispatch

import (
	"testing"
	"time"
)

// TestBreaker plays what APNs answers to one app, step by step.
func TestBreaker(t *testing.T) {
	const second = int64(time.Second)
	type step struct {
		why              string
		at               int64 // when it is
		accepted, failed int
		open             bool // after the answers
		granted          int  // of a thousand
	}
	for _, history := range []struct {
		name  string
		steps []step
	}{
		{"failures that are not in a row", []step{
			{"one less than opens it", 0, 0, 19, false, 1000},
			{"an acceptance ends the row", 0, 1, 19, false, 1000},
			{"the row goes on", 0, 0, 1, true, 0},
		}},
		{"an outage that ends", []step{
			{"it opens", 0, 0, 20, true, 0},
			{"the pause is not over", second - 1, 0, 0, true, 0},
			{"the pause is over: a probe", second, 0, 0, true, 1},
			{"it failed, and the pause doubles", second + 1, 0, 1, true, 0},
			{"not over", 3 * second, 0, 0, true, 0},
			{"another probe", 3*second + 1, 0, 0, true, 1},
			{"each accepted one lets two go", 3*second + 2, 1, 0, true, 2},
			{"and so on", 3*second + 3, 2, 0, true, 4},
			{"a failure ends that", 3*second + 4, 3, 1, true, 0},
			{"a probe after four seconds", 7*second + 4, 0, 0, true, 1},
			{"nineteen in a row", 7*second + 5, 19, 0, true, 38},
			{"twenty close it", 7*second + 6, 1, 0, false, 1000},
		}},
		{"answers of what went before", []step{
			{"it opens", 0, 0, 20, true, 0},
			{"the pause is as long as it was", 0, 0, 500, true, 0},
			{"a probe after a second", second, 0, 0, true, 1},
		}},
	} {
		b := breaker{random: func(int64) int64 { return 0 }}
		for _, s := range history.steps {
			b.tick(s.at)
			if s.accepted+s.failed > 0 {
				b.note(s.accepted, s.failed, s.at)
			}
			if b.open != s.open {
				t.Fatalf("%s, %s: open %v, want %v", history.name, s.why, b.open, s.open)
			}
			if got, _ := b.acquire(1000); got != s.granted {
				t.Fatalf("%s, %s: %d of a thousand may go, want %d", history.name, s.why, got, s.granted)
			}
		}
	}
}

// TestBreakerPauseIsBounded fails every probe for an hour.
func TestBreakerPauseIsBounded(t *testing.T) {
	b := breaker{random: func(n int64) int64 { return n - 1 }}
	b.note(0, breakerThreshold, 0)
	probes := 0
	for now := int64(0); now < int64(time.Hour); now += int64(time.Second) {
		b.tick(now)
		if n, _ := b.acquire(1000); n > 0 {
			probes++
			b.note(0, 1, now)
		}
	}
	if least, most := 3600*4/5/30-1, 3600/30+5; probes < least || probes > most {
		t.Errorf("%d probes in an hour, want %d to %d", probes, least, most)
	}
}
