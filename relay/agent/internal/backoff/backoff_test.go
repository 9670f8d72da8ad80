package backoff

import (
	"math"
	"testing"
	"time"
)

func TestDoubled(t *testing.T) {
	for _, c := range []struct {
		failures          int
		least, most, want time.Duration
	}{
		{0, time.Second, time.Minute, time.Second},
		{1, time.Second, time.Minute, 2 * time.Second},
		{5, time.Second, time.Minute, 32 * time.Second},
		{6, time.Second, time.Minute, time.Minute},
		{math.MaxInt, time.Second, time.Minute, time.Minute},
		{math.MaxInt, time.Nanosecond, 1 << 61, 1 << 61},
		{0, time.Minute, time.Second, time.Second},
	} {
		if got := Doubled(c.failures, c.least, c.most); got != c.want {
			t.Errorf("after %d failures from %v to %v: %v, want %v", c.failures, c.least, c.most, got, c.want)
		}
	}
}

func TestJittered(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 2, 3, time.Second} {
		seen := map[time.Duration]bool{}
		for range 1000 {
			got := Jittered(d)
			if got < d/2 || got > d {
				t.Fatalf("%v became %v", d, got)
			}
			seen[got] = true
		}
		if d > 1 && len(seen) < 2 {
			t.Errorf("%v was always the same", d)
		}
	}
}
