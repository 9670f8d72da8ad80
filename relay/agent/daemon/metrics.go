package daemon

import (
	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/relay/agent"
)

// asked is how asking for a count ended. Its String is the metric label.
type asked uint8

const (
	askedCounted     asked = iota
	askedRefused           // the server refused the mailbox
	askedUnavailable       // the server could not count the mailbox
	askedUnreachable       // the server could not be asked

	askedResults // how many there are
)

// String returns the result's name, one of a fixed set.
func (a asked) String() string {
	return [askedResults]string{"counted", "refused", "unavailable", "unreachable"}[a]
}

// sourceAsked labels counts that the daemon has asked for, whatever source
// answered.
const sourceAsked = "asked"

// metrics are the daemon's own.
type metrics struct {
	counts, changes, dropped, refused *prometheus.CounterVec // by source

	askedBy   [askedResults]prometheus.Counter
	resyncs   prometheus.Counter
	watchEnds map[agent.FailureKind]prometheus.Counter
}

func newMetrics(r prometheus.Registerer, sources []string) *metrics {
	bySource := func(name, help string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"source"})
		for _, s := range sources {
			v.WithLabelValues(s)
		}
		r.MustRegister(v)
		return v
	}
	m := &metrics{
		counts:  bySource("source_counts_total", "Counts that sources found out."),
		changes: bySource("source_changes_total", "Changes that sources told without a count."),
		dropped: bySource("source_dropped_total", "Counts and changes of mailboxes without a device, and counts that may be older than what was sent, for which one is asked instead."),
		refused: bySource("source_refused_total", "Counts that break a rule or did not fit in memory."),
		resyncs: prometheus.NewCounter(prometheus.CounterOpts{Name: "resyncs_total",
			Help: "Times that the relay told all mailboxes, each of which is then counted."}),
		watchEnds: make(map[agent.FailureKind]prometheus.Counter),
	}
	asks := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "counts_asked_total",
		Help: "Counts asked for, by result."}, []string{"result"})
	for a := range askedResults {
		m.askedBy[a] = asks.WithLabelValues(a.String())
	}
	ends := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watch_failures_total",
		Help: "Times that the watch for subscriptions ended or could not begin, by kind."}, []string{"kind"})
	for k := agent.FailureUnavailable; k <= agent.FailureProtocol; k++ {
		m.watchEnds[k] = ends.WithLabelValues(k.String())
	}
	r.MustRegister(m.resyncs, asks, ends)
	return m
}

func (m *metrics) asked(a asked) { m.askedBy[a].Inc() }

func gauge(name, help string, f func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
}
