package relay

import (
	"math/rand/v2"
	"testing"
)

// TestHashSetIsAMap adds and removes at random, with hashes that crowd, and
// compares with Go's map after each step.
func TestHashSetIsAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var s hashSet
	want := map[uint64]bool{}
	hashes := []uint64{0, 2, 1 << 63}
	for i := range 300 {
		hashes = append(hashes, rng.Uint64N(40)<<32|uint64(i+2)) // forty slots for three hundred
	}
	for step := range 10_000 {
		hash := hashes[rng.IntN(len(hashes))]
		if step%5000 < 3000 {
			if got := s.add(hash); got == want[hash] {
				t.Fatalf("step %d: %x is new: %v, want %v", step, hash, got, !want[hash])
			}
			want[hash] = true
		} else {
			s.remove(hash)
			delete(want, hash)
		}
		if s.count != len(want) {
			t.Fatalf("step %d: the set holds %d, want %d", step, s.count, len(want))
		}
		for _, hash := range hashes {
			if got := s.has(hash); got != want[hash] {
				t.Fatalf("step %d: %x is there: %v, want %v", step, hash, got, want[hash])
			}
		}
	}
}
