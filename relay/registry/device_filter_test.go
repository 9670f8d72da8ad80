package registry

import (
	"math/rand/v2"
	"testing"
)

// TestDeviceFilter adds hashes over several layers: all of them are found, and
// few others.
func TestDeviceFilter(t *testing.T) {
	const n = 3*firstLayer + 5
	var f deviceFilter
	random := rand.New(rand.NewPCG(7, 7))
	hashes := make([]int64, n)
	for i := range hashes {
		hashes[i] = int64(random.Uint64())
		f.add(hashes[i])
	}
	if !f.mayHave(1) {
		t.Error("says what a table has not before it knows what is in it")
	}
	if !f.begin() || f.begin() {
		t.Error("want one at a time to tell what the table has")
	}
	if f.end(false); !f.mayHave(1) || !f.begin() {
		t.Error("is sure after what was in the table could not be read")
	}
	if f.end(true); f.begin() {
		t.Error("wants to be told twice")
	}
	wrong := 0
	for _, hash := range hashes {
		if !f.mayHave(hash) {
			t.Fatalf("hash %x is lost", hash)
		}
		if f.mayHave(int64(random.Uint64())) {
			wrong++
		}
	}
	if len(f.layers) != 3 || wrong > n*4/100 { // 1 % a layer
		t.Errorf("%d of %d others are said to be there, by %d layers", wrong, n, len(f.layers))
	}
	if allocations := testing.AllocsPerRun(100, func() { f.mayHave(hashes[3]) }); allocations != 0 {
		t.Errorf("a question allocates %v times", allocations)
	}
}
