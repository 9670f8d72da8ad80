package service

import (
	"errors"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	pb "badgerelay/proto/badgerelay/v1"
)

// Metrics is what a server counts of its calls. Its series exist from the start, save
// those of calls that failed: a method times a code that it never returns is
// a series for nothing, and there would be hundreds.
type Metrics struct {
	refusals []prometheus.Counter // by reason
	calls    *prometheus.CounterVec
	methods  map[string]string // the label of each method of ours; never changes
}

// NewMetrics makes the metrics of calls of the methods, and registers them under the
// prefix; a nil r registers none.
func NewMetrics(r prometheus.Registerer, prefix string, methods []string) (*Metrics, error) {
	refusals := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "refusals_total", Help: "Calls that ended in a refusal, by reason.",
	}, []string{"reason"})
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "calls_total", Help: "Calls that ended, by method and status code; those that only validate are among them.",
	}, []string{"method", "code"})
	m := &Metrics{calls: calls, methods: map[string]string{}}
	m.refusals = append(m.refusals, nil) // UNSPECIFIED is never sent
	for i := 1; i < len(pb.ErrorReason_name); i++ {
		m.refusals = append(m.refusals, refusals.WithLabelValues(Label(pb.ErrorReason(i))))
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

// Refused counts a refusal.
func (m *Metrics) Refused(reason pb.ErrorReason) { m.refusals[reason].Inc() }

// Call counts a call that ended. Methods that are not ours are not counted.
func (m *Metrics) Call(method string, code codes.Code) {
	if short, ok := m.methods[method]; ok {
		m.calls.WithLabelValues(short, code.String()).Inc()
	}
}

// Label is the reason in metrics: "token_expired".
func Label(r pb.ErrorReason) string { return strings.ToLower(ReasonName(r)) }
