package fair

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestFloodOfOneOrganizationDelaysNoOther takes from a queue in which one
// organization has more than the others.
func TestFloodOfOneOrganizationDelaysNoOther(t *testing.T) {
	var q Queue[int, string]
	want := func(why string, n int, names ...string) {
		t.Helper()
		if got := q.Next(nil, n); !slices.Equal(got, names) {
			t.Errorf("next are %v, want %v: %s", got, names, why)
		}
	}
	q.Add(1, "a1", "a2", "a3", "a4", "a5", "a6")
	q.Add(2, "b1", "b2")
	q.Add(3, "c1")
	want("an equal share of three", 3, "a1", "b1", "c1")
	want("two are left", 4, "a2", "a3", "b2", "a4")
	q.AddFirst(1, "a0")
	want("it was put in front", 1, "a0")
	want("one is left", 9, "a5", "a6")
	want("none", 9)
}

// TestOneAtATimeServesInTurn takes one item after the other.
func TestOneAtATimeServesInTurn(t *testing.T) {
	var q Queue[int, string]
	q.Add(1, "a1", "a2", "a3")
	q.Add(2, "b1", "b2")
	var got []string
	for q.Len() > 0 {
		got = q.Next(got, 1)
	}
	if want := []string{"a1", "b1", "a2", "b2", "a3"}; !slices.Equal(got, want) {
		t.Errorf("served %v, want %v", got, want)
	}
}

// TestQueueIsAListForEachOrganization compares with plain lists, at random.
func TestQueueIsAListForEachOrganization(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var q Queue[int, string]
	want := map[int][]string{}
	count := 0
	for step := range 20_000 {
		key, item := rng.IntN(5), fmt.Sprint(step)
		switch k := rng.IntN(8); {
		case k < 3:
			q.Add(key, item, item+"'")
			want[key] = append(want[key], item, item+"'")
			count += 2
		case k < 4:
			q.AddFirst(key, item)
			want[key] = append([]string{item}, want[key]...)
			count++
		default:
			n := rng.IntN(6)
			got := q.Next(nil, n)
			if len(got) != min(n, count) {
				t.Fatalf("step %d: %d of %d are taken, want %d", step, len(got), count, n)
			}
			count -= len(got)
			for _, item := range got { // it is the first of one organization's
				i := slices.IndexFunc([]int{0, 1, 2, 3, 4}, func(key int) bool { return len(want[key]) > 0 && want[key][0] == item })
				if i < 0 {
					t.Fatalf("step %d: %s is taken before those ahead of it", step, item)
				}
				want[i] = want[i][1:]
			}
		}
		if q.Len() != count {
			t.Fatalf("step %d: %d wait, want %d", step, q.Len(), count)
		}
	}
}

// TestBusyQueueAllocatesNothing fills and empties a queue of two organizations.
func TestBusyQueueAllocatesNothing(t *testing.T) {
	var q Queue[int, int]
	into := make([]int, 0, 256)
	if n := testing.AllocsPerRun(100, func() {
		for i := range 256 {
			q.Add(i%2, i)
		}
		into = q.Next(into[:0], 256)
	}); n > 0 {
		t.Errorf("%.1f allocations, want none", n)
	}
}
