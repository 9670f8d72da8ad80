package histogram

import (
	"math"
	"testing"
)

func TestQuantile(t *testing.T) {
	bounds := []float64{0.1, 0.5, 1, math.Inf(1)}
	for _, test := range []struct {
		q          float64
		cumulative []uint64
		want       float64
	}{
		{.5, nil, 0},
		{.5, []uint64{0, 0, 0, 0}, 0},
		{.5, []uint64{10, 10, 10, 10}, 0.05}, // half of the first bucket
		{.75, []uint64{0, 4, 8, 8}, 0.75},    // half of the third
		{.99, []uint64{0, 0, 10, 1000}, 1},   // beyond the last bound
		{0, []uint64{0, 5, 5, 5}, 0.1},       // empty buckets before
		{1, []uint64{1, 2, 2, 2}, 0.5},
	} {
		if got := Quantile(test.q, bounds, test.cumulative); math.Abs(got-test.want) > 1e-9 {
			t.Errorf("the %g-quantile of %v is %g, want %g", test.q, test.cumulative, got, test.want)
		}
	}
}
