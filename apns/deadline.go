package apns

import "time"

// Deadline is a moment after which a push must not go out any more. It passes
// while the process is stopped, and where the system tells (Linux, by
// CLOCK_BOOTTIME) also while the machine sleeps, which Go's clock leaves out. A
// virtual machine that is paused together with its clocks knows nothing of it.
//
// A Deadline never changes. A nil one never passes.
type Deadline struct {
	at    time.Time     // with a monotonic reading
	slept time.Duration // by the machine, when the deadline was set
}

// DeadlineIn returns the deadline that passes after d.
func DeadlineIn(d time.Duration) *Deadline { return &Deadline{at: time.Now().Add(d), slept: slept()} }

// Passed reports whether the deadline has passed.
func (d *Deadline) Passed() bool { return d != nil && d.left() <= 0 }

// left returns how much time is left; none or less: the deadline has passed.
func (d *Deadline) left() time.Duration {
	left := time.Until(d.at)
	if asleep := slept() - d.slept; asleep >= shortestSleep {
		left -= asleep
	}
	return left
}

// shortestSleep is what is told from the time between the readings of two clocks.
const shortestSleep = time.Second

// earlier returns the deadline that passes first.
func earlier(a, b *Deadline) *Deadline {
	if a == nil || b != nil && b.at.Before(a.at) {
		return b
	}
	return a
}
