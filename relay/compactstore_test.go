package relay

import (
	"maps"
	"math/rand/v2"
	"testing"
)

// TestCompactStoreIsAMap does at random what shards do, and compares with a map.
func TestCompactStoreIsAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	c, want := compactStore{at: map[storedHash]uint32{}}, map[uint64]string{}
	for range 20_000 {
		hash := rng.Uint64N(400) * 0x9e3779b97f4a7c15
		switch {
		case !c.has(hash):
			e := make([]byte, rng.IntN(300))
			for i := range e {
				e[i] = byte(rng.Uint32())
			}
			c.put(hash, e)
			want[hash] = string(e)
		case rng.IntN(100) == 0:
			c.shrink()
		default:
			c.remove(hash)
			delete(want, hash)
		}
		e, found := c.get(hash)
		if wanted, wantFound := want[hash]; string(e) != wanted || found != wantFound || c.has(hash) != found {
			t.Fatalf("%x is %q, %v, want %q, %v", hash, e, found, wanted, wantFound)
		}
	}
	got := map[uint64]string{}
	for hash, e := range c.all() {
		got[hash] = string(e)
	}
	if !maps.Equal(got, want) || c.len() != len(want) {
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
	if got, want := cap(c.bytes), (size+1)*mailboxes/2; got > want*4/3 {
		t.Errorf("%d bytes are kept for half of them, want %d", got, want)
	}
	for hash := range mailboxes / 2 {
		if e, found := c.get(uint64(mailboxes/2 + hash)); !found || len(e) != size {
			t.Fatalf("mailbox %d is gone", mailboxes/2+hash)
		}
	}
}

// TestCompactStoreIsNotPackedAgainAndAgain has a few mailboxes of many become active and
// compact again, as in each minute of a day.
func TestCompactStoreIsNotPackedAgainAndAgain(t *testing.T) {
	const size, mailboxes, few, minutes = 90, 10_000, 10, 100
	c := compactStore{at: map[storedHash]uint32{}}
	encoded := make([]byte, size)
	for hash := range uint64(mailboxes) {
		c.put(hash, encoded)
	}
	moved := 0
	for minute := range minutes {
		before := &c.bytes[0]
		for i := range few {
			hash := uint64(minute*few + i)
			c.remove(hash)
			c.put(hash, encoded)
		}
		c.shrink()
		if &c.bytes[0] != before {
			moved++
		}
	}
	if moved > 2 { // a tenth of the mailboxes came anew
		t.Errorf("the memory was copied in %d of %d minutes", moved, minutes)
	}
}
