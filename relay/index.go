package relay

// index finds the mailboxes that are awake. It is a hash table with linear
// probing: an event of one of a million mailboxes waits for memory once here,
// where Go's map, which spreads over directory, table, control words and slots,
// makes it wait three times. The zero value is ready.
type index struct {
	slots []indexSlot // a power of two, at most three quarters taken; nil: none
	count int
}

// indexSlot holds a mailbox; nil: the slot is free.
type indexSlot struct {
	hash    uint64
	mailbox *mailbox
}

// minSlots is the least size of an index that is not empty.
const minSlots = 8

// slot returns where a hash would like to be. The lower bits have chosen the
// shard, so the upper ones choose the slot.
func (x *index) slot(hash uint64) int { return int(hash>>32) & (len(x.slots) - 1) }

// find returns the mailbox with this hash and key; nil: there is none.
func (x *index) find(hash uint64, key MailboxKey) *mailbox {
	if x.count == 0 {
		return nil
	}
	for i := x.slot(hash); ; i = (i + 1) & (len(x.slots) - 1) {
		s := &x.slots[i]
		if s.mailbox == nil || s.hash == hash && s.mailbox.key == key {
			return s.mailbox
		}
	}
}

// add adds a mailbox that is not there.
func (x *index) add(m *mailbox) {
	if x.count >= len(x.slots)/4*3 {
		x.resize(max(2*len(x.slots), minSlots))
	}
	x.count++
	x.put(indexSlot{m.hash, m})
}

func (x *index) put(s indexSlot) {
	i := x.slot(s.hash)
	for x.slots[i].mailbox != nil {
		i = (i + 1) & (len(x.slots) - 1)
	}
	x.slots[i] = s
}

// remove removes a mailbox that is there. Those behind it that had to go on
// because of it move up, so that no search stops short of them.
func (x *index) remove(m *mailbox) {
	mask := len(x.slots) - 1
	i := x.slot(m.hash)
	for x.slots[i].mailbox != m {
		i = (i + 1) & mask
	}
	x.count--
	for next := (i + 1) & mask; x.slots[next].mailbox != nil; next = (next + 1) & mask {
		home := x.slot(x.slots[next].hash)
		if (next-home)&mask >= (next-i)&mask { // i is on its way from home to next
			x.slots[i] = x.slots[next]
			i = next
		}
	}
	x.slots[i] = indexSlot{}
}

// shrink makes the index as small as what it holds.
func (x *index) shrink() {
	size := minSlots
	for x.count > size/4*3 {
		size *= 2
	}
	x.resize(size)
}

func (x *index) resize(size int) {
	old := x.slots
	x.slots = make([]indexSlot, size)
	for _, s := range old {
		if s.mailbox != nil {
			x.put(s)
		}
	}
}
