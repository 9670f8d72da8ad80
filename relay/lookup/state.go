package lookup

// State is what is known of a mailbox's subscriptions. The zero value is Unknown. Who
// has the mailbox guards it.
type State uint8

// The states.
const (
	Unknown State = iota // not read, or changed since: to be read before the next event counts
	Loading              // being read
	Changed              // being read, and changed meanwhile: to be read once more
	Known
)

// BeginLoad says that they are needed now, and reports whether the caller has to have them
// read: nobody else does.
func (s *State) BeginLoad() (load bool) {
	if *s != Unknown {
		return false
	}
	*s = Loading
	return true
}

// Invalidate says that they have changed. Those that are known are read anew at once
// where needed; it reports whether they have to be.
func (s *State) Invalidate(needed bool) (load bool) {
	switch *s {
	case Loading:
		*s = Changed
	case Known:
		*s = Unknown
		return needed && s.BeginLoad()
	}
	return false
}

// EndLoad says that they have been read, and reports whether they have to be once more:
// what was read is out of date.
func (s *State) EndLoad() (again bool) {
	if *s == Changed {
		*s = Loading
		return true
	}
	*s = Known
	return false
}

// Idle reports whether they are not being read.
func (s State) Idle() bool { return s == Known || s == Unknown }
