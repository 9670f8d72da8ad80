package chaos

import (
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestASeedRepeatsItself(t *testing.T) {
	all := Means{SmallDisk: true, OwnClock: true, Relays: true, Standby: true}
	one, again, other := Schedule(7, time.Minute, all), Schedule(7, time.Minute, all), Schedule(8, time.Minute, all)
	if !reflect.DeepEqual(one, again) {
		t.Error("two schedules of one seed differ")
	}
	if reflect.DeepEqual(one, other) {
		t.Error("two seeds have the same schedule")
	}
}

func TestAScheduleHasEverything(t *testing.T) {
	steps := Schedule(1, 5*time.Minute, Means{SmallDisk: true, OwnClock: true, Relays: true, Standby: true})
	count := map[Kind]int{}
	for _, s := range steps {
		count[s.Kind]++
	}
	for _, k := range []Kind{KillRelay, KillStarting, StopRelay, ReloadRelay, PauseRelay, KillSite, RollKey, LoseKey, Disable, Flood,
		Outage, LockRegistry, SlowRegistry, FillDisk, ReadOnly, StepClock, Leave, Move,
		Freeze, RollRelays, Partition, DeadAddress, FailOver, Twin} {
		if count[k] == 0 {
			t.Errorf("%s never happens", k)
		}
	}
	for _, f := range appleFaults() {
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

func TestAWorldGetsOnlyWhatItCanBear(t *testing.T) {
	for _, s := range Schedule(1, 5*time.Minute, Means{}) {
		if slices.Contains([]Kind{FillDisk, ReadOnly, StepClock, Freeze, RollRelays, Partition, FailOver, Twin}, s.Kind) {
			t.Fatalf("%s on a world without the means", s.Kind)
		}
	}
}

// TestFreezesAreLong wants freezes beyond all that relays allow for, and short ones.
func TestFreezesAreLong(t *testing.T) {
	var longest time.Duration
	shortest := time.Hour
	for _, s := range Schedule(1, 4*time.Minute, Means{Relays: true}) {
		if s.Kind == Freeze {
			longest, shortest = max(longest, s.frozen()), min(shortest, s.frozen())
		}
	}
	if longest != longestFreeze || shortest < 2*time.Second || shortest > time.Minute {
		t.Errorf("relays are frozen for %v to %v, want up to %v", shortest, longest, longestFreeze)
	}
}

func TestClocksGoBothWays(t *testing.T) {
	seen := map[time.Duration]bool{}
	for _, s := range Schedule(1, time.Hour, Means{OwnClock: true}) {
		if s.Kind == StepClock {
			seen[s.clockStep()] = true
		}
	}
	for _, step := range clockSteps {
		if !seen[step] || !seen[-step] {
			t.Errorf("within an hour the clock is never %v ahead, or never behind", step)
		}
	}
}
