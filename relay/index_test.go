package relay

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestIndexIsAMap adds and removes at random, with hashes that collide and
// crowd, and compares with Go's map after each step.
func TestIndexIsAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var x index[mailbox]
	want := map[MailboxKey]*mailbox{}
	keys := make([]MailboxKey, 300)
	hashes := make([]uint64, len(keys))
	for i := range keys {
		keys[i] = MailboxKey{org, fmt.Sprint("m", i)}
		hashes[i] = rng.Uint64N(40) << 32 // forty slots for three hundred
		if i%3 == 0 {
			hashes[i] = rng.Uint64()
		}
	}
	for step := range 10_000 {
		i := rng.IntN(len(keys))
		m := want[keys[i]]
		switch {
		case m == nil && step%5000 < 3000:
			m = &mailbox{key: keys[i]}
			x.add(hashes[i], m)
			want[keys[i]] = m
		case m != nil && step%5000 >= 2000:
			x.remove(hashes[i], m)
			delete(want, keys[i])
		case step%100 == 0:
			x.shrink()
		}
		yielded := 0
		for hash, m := range x.each(rng.IntN(len(x.all()) + 1)) {
			if want[m.key] != m || hashes[slices.Index(keys, m.key)] != hash {
				t.Fatalf("step %d: %v is yielded", step, m.key)
			}
			yielded++
		}
		if yielded != len(want) {
			t.Fatalf("step %d: %d are yielded, want %d", step, yielded, len(want))
		}
		if x.count != len(want) {
			t.Fatalf("step %d: the index holds %d, want %d", step, x.count, len(want))
		}
		for i := range keys {
			if got := x.find(hashes[i], func(m *mailbox) bool { return m.key == keys[i] }); got != want[keys[i]] {
				t.Fatalf("step %d: %v is %v, want %v", step, keys[i], got, want[keys[i]])
			}
		}
	}
}
