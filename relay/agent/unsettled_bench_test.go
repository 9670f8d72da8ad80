package agent

import (
	"fmt"
	"testing"
	"time"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"
)

func BenchmarkSet(b *testing.B) {
	a := idle(b, nil)
	b.ReportAllocs()
	var n uint32
	for b.Loop() {
		n++
		if err := a.Set("ann", n&MaxUnread, 0, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLife is one mailbox's count from Set to settlement, in batches.
func BenchmarkLife(b *testing.B) {
	const batch = 1000
	a := idle(b, nil)
	names := make([]string, batch)
	for i := range names {
		names[i] = fmt.Sprintf("mailbox-%d@example.com", i)
	}
	l := &inFlight{bySequence: map[uint64]*entry{}}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if err := a.Set(names[n%batch], uint32(n&MaxUnread), 0, 0); err != nil {
			b.Fatal(err)
		}
		if n%batch == batch-1 {
			a.set.take(l, batch, time.Time{})
			if _, _, err := a.set.settle(l, &badgerelayv1.Settlement{Through: l.last}, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	}
}
