package ingest

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/auth"
	"badgerelay/relay/internal/service"
)

// metrics is what the package counts.
type metrics struct {
	*service.Metrics
	sessions      [sessionKinds]prometheus.Gauge
	batches       prometheus.Counter
	sizes         prometheus.Histogram
	organizations *organizationMetrics // by organization; nil: not wanted
}

// newMetrics makes the metrics; a nil r registers none.
func newMetrics(r prometheus.Registerer, methods []string) (*metrics, error) {
	calls, err := service.NewMetrics(r, "ingest_", methods)
	if err != nil {
		return nil, err
	}
	m := &metrics{Metrics: calls}
	sessions := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "ingest_streams", Help: "Long calls of agents that are open.",
	}, []string{"kind"})
	for i, kind := range []string{"opening", "stream", "watch", "import"} {
		m.sessions[i] = sessions.WithLabelValues(kind)
	}
	m.batches = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ingest_batches_total", Help: "Batches of events taken, by Stream and Publish.",
	})
	m.sizes = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "ingest_batch_events", Help: "Events a batch.",
		Buckets: []float64{1, 4, 16, 64, 256, 1024, 4096, 10_000},
	})
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(sessions), r.Register(m.batches), r.Register(m.sizes))
}

func (m *metrics) batch(p *auth.Principal, events int) {
	m.batches.Inc()
	m.sizes.Observe(float64(events))
	m.organizations.add(p, events)
}
