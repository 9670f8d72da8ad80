//go:build !race

// The race detector makes frames larger.

package ingest

import (
	"runtime"
	runtimemetrics "runtime/metrics"
	"testing"
	"testing/synctest"

	pb "badgerelay/proto/badgerelay/v1"
)

// stacks returns how many bytes of stacks are in use when the collector has shrunk them.
func stacks() uint64 {
	synctest.Wait()
	for range 3 { // each halves a stack at most
		runtime.GC()
	}
	s := []runtimemetrics.Sample{{Name: "/memory/classes/heap/stacks:bytes"}}
	runtimemetrics.Read(s)
	return s[0].Value.Uint64()
}

// TestStacksOfStreams has streams wait for messages. Both goroutines of a stream keep to
// 4 kB each, and the client's one in this process to 2.
func TestStacksOfStreams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const streams, most = 200, 12 << 10
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		o.subscribe("ann", "a")
		o.connect() // what all share grows
		before := stacks()
		for range streams {
			a := o.connect()
			a.batch(1, &pb.Event{Mailbox: "ann", UnreadCount: 7})
			a.settled(1)
		}
		if each := (stacks() - before) / streams; each > most {
			t.Errorf("a stream takes %d bytes of stacks, want at most %d", each, most)
		}
	})
}
