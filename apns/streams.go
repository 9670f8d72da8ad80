package apns

import "sync/atomic"

// Stream ids of a client are odd (RFC 9113, section 5.1.1).
const (
	slotFree    uint32 = 0
	slotClaimed uint32 = 2 // even, so never a stream's id
	// lastStreamID is where a connection is given up and another takes over,
	// well before ids end at 2^31-1.
	lastStreamID = 1<<31 - 1 - 1<<16
)

// slot holds one open stream.
//
// id publishes the slot: the writer fills the slot and stores the stream's id.
// Whoever then swaps id for slotClaimed owes the Result, and nobody else does.
// Storing slotFree gives the slot back to the writer. That is the reader's to
// do; others claim only when nothing is opened any more.
type slot struct {
	id atomic.Uint32

	// The writer's; readable after claiming.
	tag     any
	written int64 // nanoseconds since the connection began

	// The reader's.
	status int16 // 0: no answer yet
	size   int32 // of the body so far
	body   []byte
	more   *answerHeaders
}

// answerHeaders is what else than the status matters of a refusal.
type answerHeaders struct {
	id         string
	retryAfter string
	length     int // content-length; -1: none
	got        int // bytes of the body so far, without padding
}

// streamTable finds the slot of a stream by its id. It is a ring: an id whose
// slot is still taken by an older stream is skipped, which implicitly closes
// that id (RFC 9113, section 5.1.1).
type streamTable struct {
	slots []slot
	mask  uint32
}

// newStreamTable makes room for n open streams, with as much again so that
// stragglers cost few ids.
func newStreamTable(n int) streamTable {
	size := 16
	for size < 2*n {
		size *= 2
	}
	return streamTable{slots: make([]slot, size), mask: uint32(size - 1)}
}

func (t *streamTable) at(id uint32) *slot { return &t.slots[id>>1&t.mask] }

// claim reports whether the caller now owes the result of stream id.
func (s *slot) claim(id uint32) bool { return s.id.CompareAndSwap(id, slotClaimed) }

// release gives a claimed slot back to the writer.
func (s *slot) release() {
	s.tag, s.body, s.more, s.status, s.size = nil, nil, nil, 0, 0
	s.id.Store(slotFree)
}
