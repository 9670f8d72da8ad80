package process

import (
	"sync/atomic"
	"time"
)

// OnceAMinute is for logging what anybody outside can cause again and again,
// and in words that differ. The zero value is due. It is safe for concurrent
// use.
type OnceAMinute struct {
	last atomic.Int64 // when it was due, in nanoseconds since 1970
}

// Due reports whether it was not due in the last minute.
func (o *OnceAMinute) Due() bool {
	now, last := time.Now().UnixNano(), o.last.Load()
	return now-last >= int64(repeatInterval) && o.last.CompareAndSwap(last, now)
}
