package registry

import (
	"math/bits"
	"sync"
)

// deviceFilter knows which hashes of devices a table may have: a Bloom filter
// that grows by layers. Of those that the table has not, it says of some in a
// hundred that it may. The zero value knows nothing yet, so the table may have
// any. It is safe for concurrent use.
//
// Source: Bloom, "Space/time trade-offs in hash coding with allowable errors",
// 1970; that all bits of a key lie in one cache line: Putze, Sanders and
// Singler, "Cache-, hash- and space-efficient Bloom filters", 2007.
type deviceFilter struct {
	mu       sync.Mutex // guards what follows
	filling  bool
	complete bool // everything that the table has was added
	layers   []filterLayer
}

// filterLayer is a filter for so many hashes.
type filterLayer struct {
	blocks []filterBlock
	free   int // hashes that still go in
}

// filterBlock is what holds the bits of a hash: a cache line.
type filterBlock [8]uint64

const (
	firstLayer = 1 << 18 // hashes; each next layer takes twice as many
	filterBits = 12      // of a hash's share, which makes 1 % false answers
	filterMark = 6       // bits that a hash sets
)

// begin reports whether somebody has to add what the table has by now, and end
// it then.
func (f *deviceFilter) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.complete || f.filling {
		return false
	}
	f.filling = true
	return true
}

// end says that what the table has was added, or that it was not.
func (f *deviceFilter) end(complete bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.filling, f.complete = false, f.complete || complete
}

// add notes a hash, before the table has it.
func (f *deviceFilter) add(hash int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.layers); n == 0 || f.layers[n-1].free == 0 {
		size := firstLayer << n
		f.layers = append(f.layers, filterLayer{make([]filterBlock, size*filterBits/512), size})
	}
	last := &f.layers[len(f.layers)-1]
	last.free--
	block := last.block(hash)
	for word, bit := range marks(hash) {
		block[word] |= bit
	}
}

// mayHave reports whether the table may have a hash. false: it has not.
func (f *deviceFilter) mayHave(hash int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.complete {
		return true
	}
	for i := range f.layers {
		if f.layers[i].mayHave(hash) {
			return true
		}
	}
	return false
}

func (l *filterLayer) mayHave(hash int64) bool {
	block := l.block(hash)
	for word, bit := range marks(hash) {
		if block[word]&bit == 0 {
			return false
		}
	}
	return true
}

// block is chosen by the upper bits of a hash.
func (l *filterLayer) block(hash int64) *filterBlock {
	i, _ := bits.Mul64(uint64(hash), uint64(len(l.blocks)))
	return &l.blocks[i]
}

// marks yields the bits of a hash in its block, by word. They are chosen by
// all of the hash's bits, spread by a multiplication, as the block is by the
// upper ones alone.
func marks(hash int64) func(yield func(word int, bit uint64) bool) {
	return func(yield func(word int, bit uint64) bool) {
		spread := uint64(hash) * 0x9e3779b97f4a7c15 // 2^64 by the golden ratio
		for range filterMark {
			if !yield(int(spread>>61), 1<<(spread>>55&63)) {
				return
			}
			spread <<= 9
		}
	}
}
