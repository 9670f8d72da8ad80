package chaos

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"badgerelay/apns/apnstest"
)

func TestASeedRepeatsItself(t *testing.T) {
	one, again, other := Schedule(7, time.Minute, true), Schedule(7, time.Minute, true), Schedule(8, time.Minute, true)
	if !reflect.DeepEqual(one, again) {
		t.Error("two schedules of one seed differ")
	}
	if reflect.DeepEqual(one, other) {
		t.Error("two seeds have the same schedule")
	}
}

func TestAScheduleHasEverything(t *testing.T) {
	steps := Schedule(1, 5*time.Minute, true)
	count := map[Kind]int{}
	for _, s := range steps {
		count[s.Kind]++
	}
	for _, k := range []Kind{KillRelay, KillStarting, StopRelay, ReloadRelay, PauseRelay, KillSite, RollKey, Outage, LockRegistry, FillDisk, Leave, Move} {
		if count[k] == 0 {
			t.Errorf("%s never happens", k)
		}
	}
	for _, f := range apnstest.AllFaults() {
		if count[Kind(f.String())] == 0 {
			t.Errorf("Apple's fault %s never happens", f)
		}
	}
	if kills := count[KillRelay] + count[KillStarting] + count[KillSite]; kills < 80 {
		t.Errorf("%d kills within five minutes, want a hundred or so", kills)
	}
	if !slices.IsSortedFunc(steps, func(a, b Step) int { return int(a.At - b.At) }) || steps[len(steps)-1].At >= 5*time.Minute {
		t.Error("steps are not in the order of their times, or beyond the end")
	}
}
