package ingest

import (
	"maps"
	"sync"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
)

// faultPause is how long one kind of fault of an organization's agents is only
// counted after it was logged. Ours: long enough to read a log by, however
// fast an agent repeats itself.
const faultPause = time.Minute

// faultLog says when a fault of an agent is worth a line. The zero value is
// ready; it is safe for concurrent use.
type faultLog struct {
	mu   sync.Mutex
	told map[fault]toldFault // those of the last minute, and some before
}

// fault is what is told once a minute.
type fault struct {
	organization string
	reason       pb.ErrorReason
}

type toldFault struct {
	at    time.Time
	since int // how often it has happened since
}

// worth reports whether the fault is to be logged now, and how often it
// happened since it was last.
func (l *faultLog) worth(f fault, now time.Time) (repeated int, worth bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, told := l.told[f]
	if told && now.Sub(last.at) < faultPause {
		last.since++
		l.told[f] = last
		return 0, false
	}
	if !told {
		l.sweep(now)
	}
	l.told[f] = toldFault{at: now}
	return last.since, true
}

// sweep forgets what is over, so that organizations that are gone take no
// memory.
func (l *faultLog) sweep(now time.Time) {
	if l.told == nil {
		l.told = map[fault]toldFault{}
	}
	maps.DeleteFunc(l.told, func(_ fault, t toldFault) bool { return now.Sub(t.at) >= faultPause })
}
