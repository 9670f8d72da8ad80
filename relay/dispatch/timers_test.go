package dispatch

import (
	"math/rand/v2"
	"testing"
)

type alarm struct {
	timer Timer
	at    int64 // 0: it does not wait
}

func (a *alarm) Timer() *Timer { return &a.timer }

// TestTimersWakeInOrder sets, moves and removes timers at random, and looks after
// each step who is due.
func TestTimersWakeInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	changes := 0
	timers := NewTimers[*alarm](func() { changes++ })
	alarms := make([]alarm, 50)
	earliest := func() (at int64, waiting int) {
		for i := range alarms {
			if a := alarms[i].at; a != 0 {
				waiting++
				if at == 0 || a < at {
					at = a
				}
			}
		}
		return at, waiting
	}
	for now := int64(1); now < 20_000; now++ {
		a := &alarms[rng.IntN(len(alarms))]
		before, _ := earliest()
		told := changes
		if rng.IntN(4) == 0 {
			a.at = 0
			timers.Remove(a)
		} else {
			a.at = now + 1 + rng.Int64N(40)
			timers.Set(a, a.at)
			if after, _ := earliest(); (before == 0 || after < before) && changes == told {
				t.Fatalf("at %d: nobody was told of an earlier time", now)
			}
		}
		due, next := timers.Due(now, nil)
		for i, d := range due {
			if d.at == 0 || d.at > now || i > 0 && d.at < due[i-1].at {
				t.Fatalf("at %d: one is due that waits until %d", now, d.at)
			}
		}
		for _, d := range due {
			d.at = 0
		}
		if want, waiting := earliest(); next != want || timers.Len() != waiting || len(timers.All()) != waiting || want != 0 && want <= now {
			t.Fatalf("at %d: the next is at %d of %d, want %d of %d", now, next, timers.Len(), want, waiting)
		}
	}
}
