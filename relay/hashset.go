package relay

// hashSet is a set of hashes: an index without things, which takes a third of
// the memory of Go's map. The zero value is ready.
type hashSet struct {
	slots []uint64 // at most three quarters taken; 0: free
	count int
}

// stored returns what stands for a hash: 0 stands for a free slot.
func stored(hash uint64) uint64 { return max(hash, 1) }

// slot returns where a hash is, or would be added.
func (s *hashSet) slot(hash uint64) (i int, has bool) {
	for i = slotOf(hash, len(s.slots)); s.slots[i] != 0; i = after(i, len(s.slots)) {
		if s.slots[i] == hash {
			return i, true
		}
	}
	return i, false
}

func (s *hashSet) has(hash uint64) bool {
	if s.count == 0 {
		return false
	}
	_, has := s.slot(stored(hash))
	return has
}

// add adds a hash and reports whether it was not there.
func (s *hashSet) add(hash uint64) bool {
	hash = stored(hash)
	if n := len(s.slots); s.count >= n/4*3 {
		s.resize(max(n+n/4, minSlots))
	}
	i, has := s.slot(hash)
	if has {
		return false
	}
	s.slots[i] = hash
	s.count++
	return true
}

// remove removes a hash, as index.remove does, and reports whether it was there.
func (s *hashSet) remove(hash uint64) bool {
	if !s.has(hash) {
		return false
	}
	n := len(s.slots)
	i, _ := s.slot(stored(hash))
	s.count--
	for next := after(i, n); s.slots[next] != 0; next = after(next, n) {
		home := slotOf(s.slots[next], n)
		if distance(home, next, n) >= distance(i, next, n) {
			s.slots[i] = s.slots[next]
			i = next
		}
	}
	s.slots[i] = 0
	return true
}

func (s *hashSet) resize(size int) {
	old := s.slots
	s.slots = make([]uint64, size)
	for _, hash := range old {
		if hash != 0 {
			i, _ := s.slot(hash)
			s.slots[i] = hash
		}
	}
}
