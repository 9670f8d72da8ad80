package rig

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Metrics is one scrape of the relay.
type Metrics struct {
	families map[string]*dto.MetricFamily
}

// Metrics scrapes the relay.
func (r *Relay) Metrics(ctx context.Context) (Metrics, error) { return Scrape(ctx, r.place.ops) }

// Scrape reads the metrics of the program whose ops listener has this address.
func Scrape(ctx context.Context, ops string) (Metrics, error) {
	var b bytes.Buffer
	if err := get(ctx, ops, "/metrics", &b); err != nil {
		return Metrics{}, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(&b)
	if err != nil {
		return Metrics{}, fmt.Errorf("parse the metrics of %s: %w", ops, err)
	}
	return Metrics{families}, nil
}

// With returns both scrapes as one, as of one relay that did the work of two.
func (m Metrics) With(other Metrics) Metrics {
	both := Metrics{families: map[string]*dto.MetricFamily{}}
	for _, one := range []Metrics{m, other} {
		for name, f := range one.families {
			if both.families[name] == nil {
				both.families[name] = &dto.MetricFamily{}
			}
			both.families[name].Metric = append(both.families[name].Metric, f.GetMetric()...)
		}
	}
	return both
}

// Counters returns how many events the relay took, how many of them have ended,
// and how many not yet: the first is always the sum of the others.
func (m Metrics) Counters() (accepted, settled, pending float64) {
	return m.Sum("badgerelay_events_accepted_total"), m.Sum("badgerelay_events_settled_total"), m.Sum("badgerelay_events_pending")
}

// Sum adds up the counters and gauges of this name.
func (m Metrics) Sum(name string) (sum float64) {
	for _, metric := range m.families[name].GetMetric() {
		sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
	}
	return sum
}

// Count returns how many values a summary or histogram without labels has
// seen.
func (m Metrics) Count(name string) float64 {
	var n uint64
	for _, metric := range m.families[name].GetMetric() {
		n += metric.GetSummary().GetSampleCount() + metric.GetHistogram().GetSampleCount()
	}
	return float64(n)
}

// Histogram is the difference of two scrapes of a histogram without labels.
type Histogram struct {
	bounds []float64 // seconds, ascending
	counts []uint64  // up to each bound, cumulative
}

// Since returns what the histogram has counted since before.
func (m Metrics) Since(before Metrics, name string) Histogram {
	h, then := m.histogram(name), before.histogram(name)
	for i := range min(len(h.counts), len(then.counts)) {
		h.counts[i] -= then.counts[i]
	}
	return h
}

// histogram adds up the histograms of this name, which have the same buckets.
func (m Metrics) histogram(name string) (h Histogram) {
	for _, metric := range m.families[name].GetMetric() {
		for i, b := range metric.GetHistogram().GetBucket() {
			if i == len(h.bounds) {
				h.bounds, h.counts = append(h.bounds, b.GetUpperBound()), append(h.counts, 0)
			}
			h.counts[i] += b.GetCumulativeCount()
		}
	}
	return h
}

// Quantile returns the q-quantile: interpolated within its bucket as Prometheus does,
// where what is beyond the last finite bound counts as that bound; 0 if nothing was
// counted.
func (h Histogram) Quantile(q float64) time.Duration {
	last := len(h.counts) - 1
	if last < 0 || h.counts[last] == 0 {
		return 0
	}
	rank := q * float64(h.counts[last])
	i := slices.IndexFunc(h.counts, func(n uint64) bool { return n > 0 && float64(n) >= rank })
	lower, below := 0.0, 0.0
	if i > 0 {
		lower, below = h.bounds[i-1], float64(h.counts[i-1])
	}
	seconds := lower
	if !math.IsInf(h.bounds[i], 1) {
		seconds += (h.bounds[i] - lower) * (rank - below) / (float64(h.counts[i]) - below)
	}
	return time.Duration(seconds * float64(time.Second))
}
