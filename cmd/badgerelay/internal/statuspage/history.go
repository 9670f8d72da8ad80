package statuspage

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/cmd/internal/histogram"
)

// The last minutes are compared with now, in steps. Ours: long enough to have
// seen something on a quiet relay, short enough to be "now" at 3 a.m.
const (
	window = 5 * time.Minute
	step   = 30 * time.Second
)

// History remembers what the metrics were during the last minutes. NewHistory
// makes one; Run looks. It is safe for concurrent use.
type History struct {
	metrics prometheus.Gatherer

	mu    sync.Mutex // guards looks
	looks []look     // oldest first
}

// look is what the metrics were at one moment. It never changes.
type look struct {
	at     time.Time
	counts map[series]uint64
	delays map[string]buckets // by metric
}

// series is a counter: its metric and the values of its labels.
type series struct{ metric, app, label string }

// buckets are the cumulative counts of a histogram by upper bound.
type buckets map[float64]uint64

// NewHistory returns a History of a process that starts now.
func NewHistory(metrics prometheus.Gatherer) *History {
	return &History{metrics: metrics, looks: []look{{at: time.Now()}}}
}

// Run looks until ctx is done, and returns nil.
func (h *History) Run(ctx context.Context) error {
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		seen := h.look()
		h.mu.Lock()
		h.looks = append(h.looks, seen)
		h.looks = slices.DeleteFunc(h.looks, func(l look) bool { return seen.at.Sub(l.at) > window })
		h.mu.Unlock()
	}
}

// recent returns what the metrics are now, and were at the window's beginning.
func (h *History) recent() (now, then look) {
	now = h.look()
	h.mu.Lock()
	defer h.mu.Unlock()
	return now, h.looks[0]
}

// counted are the metrics whose counters are shown, with the label that tells
// them apart.
var counted = map[string]string{
	"badgerelay_events_accepted_total": "", "badgerelay_events_settled_total": "outcome", "badgerelay_apns_pushes_total": "reason",
}

var timed = []string{"badgerelay_event_push_seconds", "badgerelay_event_settle_seconds"}

func (h *History) look() look {
	l := look{at: time.Now(), counts: map[series]uint64{}, delays: map[string]buckets{}}
	families, err := h.metrics.Gather()
	if err != nil {
		return l // a metric that can't be read is for /metrics to complain about
	}
	for _, f := range families {
		label, isCounted := counted[f.GetName()]
		isTimed := slices.Contains(timed, f.GetName())
		for _, m := range f.GetMetric() {
			switch {
			case isCounted:
				s := series{metric: f.GetName()}
				for _, pair := range m.GetLabel() {
					switch pair.GetName() {
					case "app":
						s.app = pair.GetValue()
					case label:
						s.label = pair.GetValue()
					}
				}
				l.counts[s] = uint64(m.GetCounter().GetValue())
			case isTimed:
				b := buckets{math.Inf(1): m.GetHistogram().GetSampleCount()}
				for _, bucket := range m.GetHistogram().GetBucket() {
					b[bucket.GetUpperBound()] = bucket.GetCumulativeCount()
				}
				l.delays[f.GetName()] = b
			}
		}
	}
	return l
}

// count returns a counter's value, and how much of it is recent.
func count(now, then look, s series) Count {
	return Count{Name: s.label, Total: now.counts[s], Recent: now.counts[s] - min(now.counts[s], then.counts[s])}
}

// delay returns the quantiles of what was timed since then.
func delay(now, then look, metric string) Delay {
	var bounds []float64
	for bound := range now.delays[metric] {
		bounds = append(bounds, bound)
	}
	slices.Sort(bounds)
	var counts []uint64
	for _, bound := range bounds {
		counts = append(counts, now.delays[metric][bound]-then.delays[metric][bound])
	}
	if len(counts) == 0 || counts[len(counts)-1] == 0 {
		return Delay{}
	}
	return Delay{counts[len(counts)-1], Seconds(histogram.Quantile(.5, bounds, counts)), Seconds(histogram.Quantile(.99, bounds, counts))}
}
