package lookup

import "testing"

// TestState goes through every state and every thing that can happen in it.
func TestState(t *testing.T) {
	want := func(s *State) bool { return s.Want() }
	invalidate := func(s *State) bool { return s.Invalidate(false) }
	needed := func(s *State) bool { return s.Invalidate(true) }
	loaded := func(s *State) bool { return s.Loaded() }
	for _, c := range []struct {
		name string
		from State
		do   func(*State) bool
		to   State
		load bool
	}{
		{"want", Unknown, want, Loading, true},
		{"want", Loading, want, Loading, false},
		{"want", Changed, want, Changed, false},
		{"want", Known, want, Known, false},
		{"invalidate", Unknown, invalidate, Unknown, false},
		{"invalidate", Loading, invalidate, Changed, false},
		{"invalidate", Changed, invalidate, Changed, false},
		{"invalidate", Known, invalidate, Unknown, false},
		{"invalidate what is needed", Unknown, needed, Unknown, false},
		{"invalidate what is needed", Loading, needed, Changed, false},
		{"invalidate what is needed", Changed, needed, Changed, false},
		{"invalidate what is needed", Known, needed, Loading, true},
		{"loaded", Loading, loaded, Known, false},
		{"loaded", Changed, loaded, Loading, true},
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
