package relay

import (
	"iter"
	"sync/atomic"
)

// index finds things by a hash of their key. It is a hash table with linear
// probing: an event of one of a million mailboxes waits for memory once here,
// where Go's map, which spreads over directory, table, control words and slots,
// makes it wait three times. It also takes half of a map's memory. The zero
// value is ready.
//
// The owner's lock guards it; home alone may be called without.
type index[T any] struct {
	slots atomic.Pointer[[]indexSlot[T]] // at most three quarters taken; nil: none
	count int
}

// indexSlot holds a thing and its hash; nil: the slot is free.
type indexSlot[T any] struct {
	hash uint64
	item atomic.Pointer[T]
}

// minSlots is the least size of an index that is not empty.
const minSlots = 8

// all returns the slots.
func (x *index[T]) all() []indexSlot[T] {
	if slots := x.slots.Load(); slots != nil {
		return *slots
	}
	return nil
}

// slotOf returns where among n slots a hash would like to be. The lower bits
// have chosen the shard, so the upper ones choose the slot.
func slotOf(hash uint64, n int) int { return int(hash >> 32 * uint64(n) >> 32) }

// home returns the slot at which a search begins; nil: there is none. What is
// there may be gone a moment later, and what is sought may be further on.
func (x *index[T]) home(hash uint64) *indexSlot[T] {
	slots := x.all()
	if len(slots) == 0 {
		return nil
	}
	return &slots[slotOf(hash, len(slots))]
}

// find returns the thing with this hash that is the one sought; nil: there is
// none.
func (x *index[T]) find(hash uint64, sought func(*T) bool) *T {
	slots := x.all()
	if len(slots) == 0 {
		return nil
	}
	for i := slotOf(hash, len(slots)); ; i = after(i, len(slots)) {
		item := slots[i].item.Load()
		if item == nil || slots[i].hash == hash && sought(item) {
			return item
		}
	}
}

// after returns the slot after i among n.
func after(i, n int) int {
	if i++; i < n {
		return i
	}
	return 0
}

// add adds a thing that is not there.
func (x *index[T]) add(hash uint64, item *T) {
	if n := len(x.all()); x.count >= n/4*3 {
		x.resize(max(n+n/4, minSlots)) // by little: most of the memory is here
	}
	x.count++
	put(x.all(), hash, item)
}

func put[T any](slots []indexSlot[T], hash uint64, item *T) {
	i := slotOf(hash, len(slots))
	for slots[i].item.Load() != nil {
		i = after(i, len(slots))
	}
	slots[i].set(hash, item)
}

func (s *indexSlot[T]) set(hash uint64, item *T) {
	s.hash = hash
	s.item.Store(item)
}

// remove removes a thing that is there. Those behind it that had to go on
// because of it move up, so that no search stops short of them.
func (x *index[T]) remove(hash uint64, item *T) {
	slots := x.all()
	n := len(slots)
	i := slotOf(hash, n)
	for slots[i].item.Load() != item {
		i = after(i, n)
	}
	x.count--
	for next := after(i, n); slots[next].item.Load() != nil; next = after(next, n) {
		home := slotOf(slots[next].hash, n)
		if distance(home, next, n) >= distance(i, next, n) { // i is on its way from home to next
			slots[i].set(slots[next].hash, slots[next].item.Load())
			i = next
		}
	}
	slots[i].set(0, nil)
}

// distance returns how far a search goes from one slot to another among n.
func distance(from, to, n int) int {
	if from <= to {
		return to - from
	}
	return to - from + n
}

// each yields everything once, with its hash, beginning at the slot with this
// number, at most the number of slots. Nothing may be added or removed meanwhile.
func (x *index[T]) each(from int) iter.Seq2[uint64, *T] {
	return func(yield func(uint64, *T) bool) {
		slots := x.all()
		for i := range slots {
			if i += from; i >= len(slots) {
				i -= len(slots)
			}
			if item := slots[i].item.Load(); item != nil && !yield(slots[i].hash, item) {
				return
			}
		}
	}
}

// shrink makes the index as small as what it holds.
func (x *index[T]) shrink() { x.resize(max(x.count/3*4+4, minSlots)) }

func (x *index[T]) resize(size int) {
	old, slots := x.all(), make([]indexSlot[T], size)
	for i := range old {
		if item := old[i].item.Load(); item != nil {
			put(slots, old[i].hash, item)
		}
	}
	x.slots.Store(&slots)
}
