package agent

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the agent's own; a nil *metrics counts nothing.
type metrics struct {
	outcomes [outcomes]prometheus.Counter
	failures [failureKinds]prometheus.Counter
	settle   prometheus.Histogram
	events   prometheus.Counter
	batches  prometheus.Counter
	replays  prometheus.Counter
	opens    prometheus.Counter
	renewals prometheus.Counter
}

// newMetrics registers the agent's metrics, all at zero. Without a registerer
// it returns nil.
func newMetrics(registerer prometheus.Registerer, a *Agent) (*metrics, error) {
	if registerer == nil {
		return nil, nil
	}
	var all []prometheus.Collector
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		all = append(all, c)
		return c
	}
	m := &metrics{
		settle: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "agent_settle_seconds", Help: "Time from a count's Set until the agent hears that it has settled, the settlement delay included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 10),
		}),
		events:   counter("agent_events_sent_total", "Events sent to a relay, replays included."),
		batches:  counter("agent_batches_sent_total", "Batches sent to a relay."),
		replays:  counter("agent_events_unsettled_at_end_total", "Events that had not settled when their stream ended."),
		opens:    counter("agent_streams_opened_total", "Streams that a relay has welcomed."),
		renewals: counter("agent_tokens_renewed_total", "Fresh tokens handed in on an open stream."),
	}
	settled := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "agent_events_settled_total",
		Help: "Counts settled by a relay, by outcome; submitted = replaced + settled + unsettled."}, []string{"outcome"})
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "agent_stream_failures_total",
		Help: "Streams that ended or could not be opened, by kind."}, []string{"kind"})
	for o := range outcomes {
		m.outcomes[o] = settled.WithLabelValues(o.String())
	}
	for k := range failureKinds {
		m.failures[k] = failures.WithLabelValues(k.String())
	}
	all = append(all, m.settle, settled, failures,
		gauge("agent_unsettled", "Mailboxes whose newest count has not settled.", func() float64 { return float64(a.Ledger().Unsettled) }),
		gauge("agent_connected", "1 while a stream is open.", func() float64 {
			if a.Status().Connected {
				return 1
			}
			return 0
		}),
		total("agent_events_submitted_total", "Counts taken by Set.", func() float64 { return float64(a.Ledger().Submitted) }),
		total("agent_events_replaced_total", "Counts replaced by a newer one before they settled.", func() float64 { return float64(a.Ledger().Replaced) }),
	)
	var errs []error
	for _, c := range all {
		errs = append(errs, registerer.Register(c))
	}
	return m, errors.Join(errs...)
}

func gauge(name, help string, f func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
}

func total(name, help string, f func() float64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, f)
}

func (m *metrics) settled(results []Result, ages []time.Duration) {
	if m == nil {
		return
	}
	for i, r := range results {
		m.outcomes[r.Outcome].Inc()
		m.settle.Observe(ages[i].Seconds())
	}
}

func (m *metrics) sent(events int) {
	if m != nil {
		m.batches.Inc()
		m.events.Add(float64(events))
	}
}

func (m *metrics) opened() {
	if m != nil {
		m.opens.Inc()
	}
}

func (m *metrics) failed(k FailureKind) {
	if m != nil {
		m.failures[k].Inc()
	}
}

func (m *metrics) replayed(n int) {
	if m != nil {
		m.replays.Add(float64(n))
	}
}

func (m *metrics) renewed() {
	if m != nil {
		m.renewals.Inc()
	}
}
