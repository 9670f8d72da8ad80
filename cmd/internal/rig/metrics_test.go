package rig

import (
	"math"
	"testing"
	"time"
)

func TestQuantilesLieInTheirBucket(t *testing.T) {
	bounds := []float64{0.1, 0.5, 1, math.Inf(1)}
	for _, test := range []struct {
		q          float64
		cumulative []uint64
		want       time.Duration
	}{
		{.5, nil, 0},
		{.5, []uint64{0, 0, 0, 0}, 0},
		{.5, []uint64{10, 10, 10, 10}, 50 * time.Millisecond}, // half of the first bucket
		{.75, []uint64{0, 4, 8, 8}, 750 * time.Millisecond},   // half of the third
		{.99, []uint64{0, 0, 10, 1000}, time.Second},          // beyond the last bound
		{0, []uint64{0, 5, 5, 5}, 100 * time.Millisecond},     // empty buckets before
		{1, []uint64{1, 2, 2, 2}, 500 * time.Millisecond},
	} {
		h := Histogram{bounds: bounds[:len(test.cumulative)], counts: test.cumulative}
		if got := h.Quantile(test.q).Round(time.Microsecond); got != test.want {
			t.Errorf("the %g-quantile of %v is %v, want %v", test.q, test.cumulative, got, test.want)
		}
	}
}
