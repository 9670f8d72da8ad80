package rig

import (
	"bytes"
	"context"
	"fmt"
	"math"
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
func (r *Relay) Metrics(ctx context.Context) (Metrics, error) {
	var b bytes.Buffer
	if err := r.get(ctx, "/metrics", &b); err != nil {
		return Metrics{}, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(&b)
	if err != nil {
		return Metrics{}, fmt.Errorf("parse the relay's metrics: %w", err)
	}
	return Metrics{families}, nil
}

// Sum adds up the counters and gauges of this name, those with the label's
// value where one is given.
func (m Metrics) Sum(name string, label ...string) (sum float64) {
	for _, metric := range m.families[name].GetMetric() {
		if len(label) == 2 && labelOf(metric, label[0]) != label[1] {
			continue
		}
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

func labelOf(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// Values returns each value of a counter or gauge by the value of its label.
func (m Metrics) Values(name, label string) map[string]float64 {
	all := map[string]float64{}
	for _, metric := range m.families[name].GetMetric() {
		all[labelOf(metric, label)] += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
	}
	return all
}

// Histogram is the difference of two scrapes of a histogram without labels.
type Histogram struct {
	bounds []float64 // seconds, ascending
	counts []uint64  // in each bucket
	total  uint64
}

// Since returns what the histogram has counted since before.
func (m Metrics) Since(before Metrics, name string) Histogram {
	var h Histogram
	now, then := buckets(m.families[name]), buckets(before.families[name])
	var below uint64
	for i, b := range now {
		n := b.GetCumulativeCount()
		if i < len(then) {
			n -= then[i].GetCumulativeCount()
		}
		h.bounds, h.counts = append(h.bounds, b.GetUpperBound()), append(h.counts, n-below)
		below = n
	}
	h.total = below
	return h
}

func buckets(f *dto.MetricFamily) []*dto.Bucket {
	if len(f.GetMetric()) == 0 {
		return nil
	}
	return f.GetMetric()[0].GetHistogram().GetBucket()
}

// Quantile returns an upper bound of the q-quantile, interpolated within its
// bucket as Prometheus does; 0 if nothing was counted.
func (h Histogram) Quantile(q float64) time.Duration {
	rank := q * float64(h.total)
	var below float64
	for i, n := range h.counts {
		if n == 0 || below+float64(n) < rank {
			below += float64(n)
			continue
		}
		low := 0.0
		if i > 0 {
			low = h.bounds[i-1]
		}
		if math.IsInf(h.bounds[i], 1) {
			return time.Duration(low * float64(time.Second))
		}
		return time.Duration((low + (h.bounds[i]-low)*(rank-below)/float64(n)) * float64(time.Second))
	}
	return 0
}
