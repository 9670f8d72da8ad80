package relay

import (
	"encoding/binary"
	"iter"
	"math"
)

// compactStore holds a shard's compact mailboxes by the hash of their key, no two of
// which have one hash. They stand one behind the other in one piece of memory, which
// takes a third less than a string for each, and the collector sees one object in
// place of millions.
type compactStore struct {
	at    map[storedHash]uint32 // where in bytes a mailbox begins
	bytes []byte                // of each mailbox its size, a uvarint, and what encodedMailbox says
	gone  int                   // of bytes: those of mailboxes that were removed
}

// Bounds of the memory that is not needed: as much as one part in so many. What is
// packed grows by less than makes it worth packing again.
const (
	growth = 8 // at once
	unused = 4 // of all
)

// storedHash is a mailbox's hash in halves: a number of eight bytes would fill up
// each of the map's entries to sixteen.
type storedHash [2]uint32

func halves(hash uint64) storedHash { return storedHash{uint32(hash), uint32(hash >> 32)} }

func (c *compactStore) len() int { return len(c.at) }

// full reports whether no mailbox can be put: places are numbers of four bytes.
func (c *compactStore) full() bool { return uint64(len(c.bytes)) > math.MaxUint32 }

func (c *compactStore) has(hash uint64) bool {
	_, found := c.at[halves(hash)]
	return found
}

// get returns the mailbox with this hash. It is valid until the next is put.
func (c *compactStore) get(hash uint64) (e encodedMailbox, found bool) {
	at, found := c.at[halves(hash)]
	if !found {
		return nil, false
	}
	return c.encoded(at), true
}

// encoded returns the mailbox that begins at a place.
func (c *compactStore) encoded(at uint32) encodedMailbox {
	size, header := binary.Uvarint(c.bytes[at:])
	return c.bytes[int(at)+header:][:size]
}

// stored returns the memory of the mailbox that begins at a place, its size included.
func (c *compactStore) stored(at uint32) []byte {
	size, header := binary.Uvarint(c.bytes[at:])
	return c.bytes[at:][:header+int(size)]
}

// put stores a mailbox that begins to be compact, encoded as encodedMailbox says.
func (c *compactStore) put(hash uint64, encoded []byte) {
	if c.gone > len(c.bytes)/unused {
		c.repack()
	}
	if need := len(c.bytes) + binary.MaxVarintLen32 + len(encoded); need > cap(c.bytes) {
		c.bytes = append(make([]byte, 0, need+need/growth), c.bytes...)
	}
	c.at[halves(hash)] = uint32(len(c.bytes))
	c.bytes = binary.AppendUvarint(c.bytes, uint64(len(encoded)))
	c.bytes = append(c.bytes, encoded...)
}

// remove takes a mailbox out that is there.
func (c *compactStore) remove(hash uint64) {
	c.gone += len(c.stored(c.at[halves(hash)]))
	delete(c.at, halves(hash))
}

// all returns all mailboxes with their hashes, in no order. They may be removed
// meanwhile, and none put.
func (c *compactStore) all() iter.Seq2[uint64, encodedMailbox] {
	return func(yield func(uint64, encodedMailbox) bool) {
		for hash, at := range c.at {
			if !yield(uint64(hash[0])|uint64(hash[1])<<32, c.encoded(at)) {
				return
			}
		}
	}
}

// shrink gives back the memory that is not needed, where it is worth the work.
func (c *compactStore) shrink() {
	if cap(c.bytes)-len(c.bytes)+c.gone > cap(c.bytes)/unused {
		c.repack()
	}
}

// repack copies the mailboxes that are there into memory of their size.
func (c *compactStore) repack() {
	packed := make([]byte, 0, len(c.bytes)-c.gone)
	for hash, at := range c.at {
		c.at[hash] = uint32(len(packed))
		packed = append(packed, c.stored(at)...)
	}
	c.bytes, c.gone = packed, 0
}
