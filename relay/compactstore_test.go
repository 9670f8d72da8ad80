package relay

import (
	"maps"
	"math/rand/v2"
	"testing"
)

// TestCompactStoreIsAMap does at random what shards do, and compares with a map.
func TestCompactStoreIsAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	c, want := compactStore{at: map[storedHash]uint32{}}, map[uint64]encodedMailbox{}
	for range 20_000 {
		hash := rng.Uint64N(400) * 0x9e3779b97f4a7c15
		switch {
		case !c.has(hash):
			e := make([]byte, rng.IntN(300))
			for i := range e {
				e[i] = byte(rng.Uint32())
			}
			c.put(hash, e)
			want[hash] = encodedMailbox(e)
		case rng.IntN(100) == 0:
			c.shrink()
		default:
			c.remove(hash)
			delete(want, hash)
		}
		e, found := c.get(hash)
		if wanted, wantFound := want[hash]; e != wanted || found != wantFound || c.has(hash) != found {
			t.Fatalf("%x is %q, %v, want %q, %v", hash, e, found, wanted, wantFound)
		}
	}
	if got := maps.Collect(c.all()); !maps.Equal(got, want) || c.len() != len(want) {
		t.Fatalf("%d mailboxes, want %d: %v", c.len(), len(want), got)
	}
}

// TestCompactStoreTakesWhatItNeeds has mailboxes come and go.
func TestCompactStoreTakesWhatItNeeds(t *testing.T) {
	const size, mailboxes = 100, 1000
	c := compactStore{at: map[storedHash]uint32{}}
	encoded := make([]byte, size)
	for hash := range uint64(mailboxes) {
		c.put(hash, encoded)
	}
	for range 10 {
		for hash := range uint64(mailboxes) {
			c.remove(hash)
			c.put(hash, encoded)
		}
	}
	if used := len(c.bytes); used > (size+1)*mailboxes*4/3+2*size {
		t.Errorf("%d bytes for %d mailboxes of %d bytes", used, mailboxes, size)
	}
	for hash := range uint64(mailboxes / 2) {
		c.remove(hash)
	}
	c.shrink()
	if got, want := cap(c.bytes), (size+1)*mailboxes/2; got > want*9/8 {
		t.Errorf("%d bytes are kept for half of them, want %d", got, want)
	}
	for hash := range mailboxes / 2 {
		if e, found := c.get(uint64(mailboxes/2 + hash)); !found || len(e) != size {
			t.Fatalf("mailbox %d is gone", mailboxes/2+hash)
		}
	}
}
