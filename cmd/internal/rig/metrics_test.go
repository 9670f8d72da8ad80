package rig

import (
	"testing"
	"time"
)

func TestQuantilesLieInTheirBucket(t *testing.T) {
	h := Histogram{bounds: []float64{0.001, 0.002, 0.004}, counts: []uint64{10, 10, 20}}
	for _, test := range []struct {
		q    float64
		want time.Duration
	}{{0.25, 500 * time.Microsecond}, {0.5, time.Millisecond}, {0.75, 3 * time.Millisecond}, {1, 4 * time.Millisecond}} {
		if got := h.Quantile(test.q); got != test.want {
			t.Errorf("quantile %v is %v, want %v", test.q, got, test.want)
		}
	}
	if got := (Histogram{}).Quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing is %v, want 0", got)
	}
}
