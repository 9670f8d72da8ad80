// Package backoff says how long to wait after failures in a row. The caller keeps only
// the number of failures, to save memory for each mailbox.
package backoff

import (
	"math/rand/v2"
	"time"
)

// Doubled returns least, doubled as many times as there were failures, and most where
// that is less. failures is 0 or more, and least and most are above 0 and below
// 2^62.
func Doubled(failures int, least, most time.Duration) time.Duration {
	for ; failures > 0 && least < most; failures-- {
		least *= 2
	}
	return min(least, most)
}

// Jittered returns between half of d and d, so that those who failed together do not
// come back in step. d is 0 or more.
func Jittered(d time.Duration) time.Duration { return d - rand.N(d/2+1) }
