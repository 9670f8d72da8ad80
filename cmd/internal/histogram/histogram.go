// Package histogram reads quantiles off Prometheus' histograms.
package histogram

import (
	"math"
	"slices"
)

// Quantile returns the q-quantile of what a histogram has counted, in the unit of its
// bounds: interpolated within its bucket as Prometheus does, where what is beyond the
// last finite bound counts as that bound. cumulative says of each bound how many were
// at most that; 0 if nothing was counted.
func Quantile(q float64, bounds []float64, cumulative []uint64) float64 {
	last := len(cumulative) - 1
	if last < 0 || cumulative[last] == 0 {
		return 0
	}
	rank := q * float64(cumulative[last])
	i := slices.IndexFunc(cumulative, func(n uint64) bool { return n > 0 && float64(n) >= rank })
	lower, below := 0.0, 0.0
	if i > 0 {
		lower, below = bounds[i-1], float64(cumulative[i-1])
	}
	if math.IsInf(bounds[i], 1) {
		return lower
	}
	return lower + (bounds[i]-lower)*(rank-below)/(float64(cumulative[i])-below)
}
