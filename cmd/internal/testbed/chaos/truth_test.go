package chaos

import (
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/cmd/internal/rig/names"
)

func TestTheLongestBehindIsCountedFromTheNextVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		truth := NewTruth([]int{0, 1}, 1)
		for range 5 { // versions of mailbox 0 at 0 s, 1 s, 2 s, 3 s, 4 s
			truth.Change(0)
			time.Sleep(time.Second)
		}
		for _, test := range []struct {
			name    string
			shown   uint32
			wrong   int
			longest time.Duration
		}{
			{"the newest", names.Unread(0, 5), 0, 0},
			{"the one before", names.Unread(0, 4), 1, time.Second},
			{"an old one", names.Unread(0, 1), 1, 4 * time.Second},
			{"nothing", 0, 1, 5 * time.Second},
		} {
			v := truth.Judge([]uint32{test.shown, 0})
			if v.Wrong != test.wrong || v.Longest != test.longest {
				t.Errorf("%s: %d wrong for %v, want %d for %v", test.name, v.Wrong, v.Longest, test.wrong, test.longest)
			}
		}
	})
}

func TestDevicesOnTheirWayAreNotJudged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		truth := NewTruth([]int{0, 1}, 1)
		truth.Change(1)
		if !truth.Suspend(0) || truth.Suspend(0) {
			t.Error("a device is suspended once")
		}
		if v := truth.Judge([]uint32{9, names.UnreadOf(1, 1, 1)}); v.Wrong != 0 || v.Unknown != 1 {
			t.Errorf("%+v, want one unknown and none wrong", v)
		}
		time.Sleep(time.Minute)
		truth.Settle(0, 1)
		time.Sleep(time.Second)
		if v := truth.Judge([]uint32{9, names.UnreadOf(1, 1, 1)}); v.Wrong != 1 || v.Longest != time.Second || v.Unknown != 0 {
			t.Errorf("%+v, want one wrong since it moved, a second ago", v)
		}
	})
}

func TestSharedDevicesShowTheSum(t *testing.T) {
	truth := NewTruth([]int{0, 1}, 1)
	truth.Share(1, 0)
	truth.Change(0)
	truth.Change(1)
	ours, theirs := names.UnreadOf(1, 1, 1), names.Unread(0, 1)
	for shown, wrong := range map[uint32]int{ours + theirs: 0, ours: 1, theirs: 1, 0: 1} {
		if v := truth.Judge([]uint32{theirs, shown}); v.Wrong != wrong || len(v.Foreign) != 0 {
			t.Errorf("a device on both that shows %d: %+v, want %d wrong and none foreign", shown, v, wrong)
		}
	}
}

func TestAnotherOrganizationsCountIsSeen(t *testing.T) {
	truth := NewTruth([]int{0, 0, 1}, 1)
	truth.Change(2)
	truth.Suspend(2)
	theirs := names.UnreadOf(1, 2, 1)
	if v := truth.Judge([]uint32{0, theirs, theirs}); len(v.Foreign) != 1 || v.Foreign[0] != 1 {
		t.Errorf("%+v, want device 1 to show what is not its organization's", v)
	}
	truth.Suspend(1) // no excuse
	if v := truth.Judge([]uint32{0, theirs, theirs}); len(v.Foreign) != 1 {
		t.Errorf("%+v, want device 1 to be seen while it is on its way", v)
	}
}
