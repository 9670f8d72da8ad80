package ews

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// operation is what is asked of the server. Its String is the metric label.
type operation uint8

const (
	opSubscribe operation = iota
	opUnsubscribe
	opStream
	opCount
	opFind
	opLocate

	operations // how many there are
)

// String returns the operation's name, one of a fixed set.
func (o operation) String() string {
	return [operations]string{"subscribe", "unsubscribe", "stream", "count", "find_folder", "autodiscover"}[o]
}

// result is how a request ended. Its String is the metric label.
type result uint8

const (
	resultDone         result = iota
	resultRefused             // the server answers with an error
	resultBusy                // it asks to be left alone
	resultUnauthorized        // it does not let us in
	resultFailed              // no answer

	results // how many there are
)

// String returns the result's name, one of a fixed set.
func (r result) String() string {
	return [results]string{"done", "refused", "busy", "unauthorized", "failed"}[r]
}

// end is why a stream ended. Its String is the metric label.
type end uint8

const (
	endClosed end = iota // in order
	endJoin              // by us, for mailboxes that came or went
	endSilent            // it was dead
	endBroken            // the connection was cut
	endLost              // subscriptions are lost
	endMoved             // mailboxes are elsewhere
	endLimit             // the server allows no more
	endBusy              // it asks to be left alone
	endOther

	ends // how many there are
)

// String returns the reason's name, one of a fixed set.
func (e end) String() string {
	return [ends]string{"closed", "mailboxes_changed", "silent", "broken", "subscriptions_lost", "moved", "limit", "busy", "other"}[e]
}

// metrics are the source's own.
type metrics struct {
	requests   [operations][results]prometheus.Counter
	streamEnds [ends]prometheus.Counter
	events     prometheus.Counter
	backOffs   prometheus.Counter
	skipped    prometheus.Counter
}

// newMetrics makes the metrics, all at zero, and registers them if there is a
// registerer.
func newMetrics(r prometheus.Registerer, s *Source) (*metrics, error) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ews_requests_total",
		Help: "Requests to Exchange Web Services, by operation and result."}, []string{"operation", "result"})
	streamEnds := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ews_stream_ends_total",
		Help: "Streaming connections that ended, by reason."}, []string{"reason"})
	m := &metrics{
		events:   prometheus.NewCounter(prometheus.CounterOpts{Name: "ews_events_total", Help: "Events that streams have told."}),
		backOffs: prometheus.NewCounter(prometheus.CounterOpts{Name: "ews_back_offs_total", Help: "Times that Exchange asked to be left alone."}),
		skipped:  prometheus.NewCounter(prometheus.CounterOpts{Name: "ews_stream_junk_total", Help: "Times that a stream held what is not Exchange's, such as a proxy's page."}),
	}
	for o := range operations {
		for result := range results {
			m.requests[o][result] = requests.WithLabelValues(o.String(), result.String())
		}
	}
	for e := range ends {
		m.streamEnds[e] = streamEnds.WithLabelValues(e.String())
	}
	if r == nil {
		return m, nil
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		requests, streamEnds, m.events, m.backOffs, m.skipped,
		gauge("ews_mailboxes_streamed", "Mailboxes that a stream tells of now.", func() float64 { n, _, _ := s.numbers(); return float64(n) }),
		gauge("ews_mailboxes_polled", "Mailboxes that no stream tells of now, and that are counted now and then.", func() float64 { _, n, _ := s.numbers(); return float64(n) }),
		gauge("ews_mailboxes_failing", "Mailboxes that Exchange refuses or fails.", func() float64 { _, _, n := s.numbers(); return float64(n) }),
		gauge("ews_streams", "Streaming connections.", func() float64 { return float64(s.streams.used()) }),
		gauge("ews_server_trouble", "0: Exchange answers; 1: it can't be reached; 2: it lets nobody in; 3: it asks to be left alone.", func() float64 {
			t, _ := s.gate.state()
			return float64(t)
		}),
	} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

// requested counts a request.
func (m *metrics) requested(o operation, err error) {
	result := resultFailed
	switch _, unauthorized := errors.AsType[*UnauthorizedError](err); {
	case err == nil:
		result = resultDone
	case unauthorized:
		result = resultUnauthorized
	case isBusy(err):
		result = resultBusy
	default:
		if _, said := errors.AsType[*Error](err); said {
			result = resultRefused
		}
	}
	m.requests[o][result].Inc()
}
