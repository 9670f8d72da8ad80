//go:build !linux

package apns

import "time"

// slept returns how long the machine has slept since it was booted: not known.
func slept() time.Duration { return 0 }
