package relay

import (
	"slices"
	"testing"
)

// TestFloodOfOneOrganizationDelaysNoOther takes from a queue in which one
// organization has more than the others.
func TestFloodOfOneOrganizationDelaysNoOther(t *testing.T) {
	var q fairQueue[string]
	q.begin()
	want := func(why string, n int, names ...string) {
		t.Helper()
		if got := q.next(nil, n); !slices.Equal(got, names) {
			t.Errorf("next are %v, want %v: %s", got, names, why)
		}
	}
	q.add(1, "a1", "a2", "a3", "a4", "a5", "a6")
	q.add(2, "b1", "b2")
	q.add(3, "c1")
	want("an equal share of three", 3, "a1", "b1", "c1")
	want("two are left", 4, "a2", "a3", "b2", "a4")
	want("one is left", 9, "a5", "a6")
	want("none", 9)
}
