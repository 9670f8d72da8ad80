package apns

import (
	"time"

	"golang.org/x/sys/unix"
)

// slept returns how long the machine has slept since it was booted: Go's clock is
// CLOCK_MONOTONIC, and CLOCK_BOOTTIME differs from it by that (Linux
// clock_gettime(2), read 2026-11). What passes between the two readings makes it
// seem longer, by microseconds, and a process that is stopped there sees the
// deadline pass sooner.
func slept() time.Duration {
	var running, all unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &running) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &all) != nil {
		return 0
	}
	return time.Duration(all.Nano() - running.Nano())
}
