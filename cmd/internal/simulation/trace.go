package simulation

import (
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"sync"
	"time"
)

// trace is what happened, line by line. Two runs that did the same have the
// same hash.
type trace struct {
	mu    sync.Mutex // guards what follows; a leaf
	began time.Time
	hash  hash.Hash64
	lines []string
	to    io.Writer // nil: it is printed nowhere
}

// traceKept is how many of the last lines a failure shows.
const traceKept = 4000

func newTrace(to io.Writer) *trace { return &trace{began: time.Now(), hash: fnv.New64a(), to: to} }

func (t *trace) add(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := fmt.Sprintf("%10.6f %s", time.Since(t.began).Seconds(), fmt.Sprintf(format, args...))
	_, _ = io.WriteString(t.hash, line) // a hash does not fail
	if len(t.lines) == traceKept {
		t.lines = t.lines[1:]
	}
	t.lines = append(t.lines, line)
	if t.to != nil {
		_, _ = fmt.Fprintln(t.to, line) // what can't be printed is not worth a failure
	}
}

func (t *trace) sum() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hash.Sum64()
}
