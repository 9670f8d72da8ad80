package ingest

import (
	"errors"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"badgerelay/auth"
	pb "badgerelay/proto/badgerelay/v1"
)

// metrics is what the package counts. Its series exist from the start, save
// those of calls that failed: a method times a code that it never returns is
// a series for nothing, and there would be hundreds.
type metrics struct {
	sessions [sessionKinds]prometheus.Gauge
	batches  prometheus.Counter
	sizes    prometheus.Histogram
	refusals []prometheus.Counter // by reason
	calls    *prometheus.CounterVec
	methods  map[string]string // the label of each method of ours; never changes
	tally    *tally            // by organization; nil: not wanted
}

// newMetrics makes the metrics. Those of calls of the methods and of refusals
// are registered under the prefix; a nil r registers none.
func newMetrics(r prometheus.Registerer, prefix string, methods []string) (*metrics, error) {
	refusals := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "refusals_total", Help: "Calls that ended in a refusal, by reason.",
	}, []string{"reason"})
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "calls_total", Help: "Calls that ended, by method and status code.",
	}, []string{"method", "code"})
	m := &metrics{calls: calls, methods: map[string]string{}}
	m.refusals = append(m.refusals, nil) // UNSPECIFIED is never sent
	for i := 1; i < len(pb.ErrorReason_name); i++ {
		m.refusals = append(m.refusals, refusals.WithLabelValues(label(pb.ErrorReason(i))))
	}
	for _, method := range methods {
		m.methods[method] = method[strings.LastIndexByte(method, '.')+1:] // RelayService/Publish
		calls.WithLabelValues(m.methods[method], codes.OK.String())
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(refusals), r.Register(calls))
}

// newAgentMetrics is newMetrics with what only agents do: streams and batches.
func newAgentMetrics(r prometheus.Registerer, methods []string) (*metrics, error) {
	m, err := newMetrics(r, "ingest_", methods)
	if err != nil {
		return nil, err
	}
	sessions := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "ingest_streams", Help: "Long calls of agents that are open.",
	}, []string{"kind"})
	for i, kind := range []string{"stream", "watch", "import"} {
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

func (m *metrics) refused(reason pb.ErrorReason) { m.refusals[reason].Inc() }

// call counts a call that ended. Methods that are not ours are not counted.
func (m *metrics) call(method string, code codes.Code) {
	if short, ok := m.methods[method]; ok {
		m.calls.WithLabelValues(short, code.String()).Inc()
	}
}

func (m *metrics) batch(p *auth.Principal, events int) {
	m.batches.Inc()
	m.sizes.Observe(float64(events))
	m.tally.add(p, events)
}

// label is the reason in metrics: "token_expired".
func label(r pb.ErrorReason) string { return strings.ToLower(reasonName(r)) }
