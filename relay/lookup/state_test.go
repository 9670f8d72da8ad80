package lookup

import "testing"

// TestState goes through every state and every thing that can happen in it.
func TestState(t *testing.T) {
	invalidate := func(s *State) bool { return s.Invalidate(false) }
	needed := func(s *State) bool { return s.Invalidate(true) }
	for _, c := range []struct {
		name string
		from State
		do   func(*State) bool
		to   State
		load bool
	}{
		{"begin to load", Unknown, (*State).BeginLoad, Loading, true},
		{"begin to load", Loading, (*State).BeginLoad, Loading, false},
		{"begin to load", Changed, (*State).BeginLoad, Changed, false},
		{"begin to load", Known, (*State).BeginLoad, Known, false},
		{"invalidate", Unknown, invalidate, Unknown, false},
		{"invalidate", Loading, invalidate, Changed, false},
		{"invalidate", Changed, invalidate, Changed, false},
		{"invalidate", Known, invalidate, Unknown, false},
		{"invalidate what is needed", Unknown, needed, Unknown, false},
		{"invalidate what is needed", Loading, needed, Changed, false},
		{"invalidate what is needed", Changed, needed, Changed, false},
		{"invalidate what is needed", Known, needed, Loading, true},
		{"end loading", Loading, (*State).EndLoad, Known, false},
		{"end loading", Changed, (*State).EndLoad, Loading, true},
	} {
		s := c.from
		if load := c.do(&s); s != c.to || load != c.load {
			t.Errorf("%s in state %d: state %d, read %v; want %d, %v", c.name, c.from, s, load, c.to, c.load)
		}
		if got, want := s.Idle(), s == Known || s == Unknown; got != want {
			t.Errorf("state %d is idle: %v, want %v", s, got, want)
		}
	}
}
