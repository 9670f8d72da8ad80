package imap

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// connect is how an attempt to log in ended. Its String is the metric label.
type connect uint8

const (
	connectDone    connect = iota
	connectRefused         // the server refused the login
	connectFailed          // no connection, no TLS, or no answer
	connectLimited         // the server has enough connections of ours

	connectResults // how many there are
)

// String returns the result's name, one of a fixed set.
func (c connect) String() string {
	return [connectResults]string{"accepted", "refused", "failed", "limited"}[c]
}

// metrics are the source's own.
type metrics struct {
	connects [connectResults]prometheus.Counter
	watching [modes]prometheus.Gauge
	failed   prometheus.Counter
}

// newMetrics makes the metrics, all at zero, and registers them if there is a
// registerer.
func newMetrics(r prometheus.Registerer, s *Source) (*metrics, error) {
	connects := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "imap_logins_total",
		Help: "Attempts to connect to the mail server and log in, by result."}, []string{"result"})
	watching := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "imap_watching",
		Help: "Mailboxes that have a connection now, by how they are watched."}, []string{"mode"})
	m := &metrics{failed: prometheus.NewCounter(prometheus.CounterOpts{Name: "imap_watch_failures_total",
		Help: "Turns of a mailbox that failed while the mail server as a whole was well."})}
	for c := range connectResults {
		m.connects[c] = connects.WithLabelValues(c.String())
	}
	for o := range modes {
		m.watching[o] = watching.WithLabelValues(o.String())
	}
	if r == nil {
		return m, nil
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		connects, watching, m.failed,
		gauge("imap_mailboxes_waiting", "Mailboxes to watch that have no connection now.", func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(len(s.waiting))
		}),
		gauge("imap_connections_allowed", "Connections that the mail server allows, as far as it is known; at most those configured.", func() float64 {
			return float64(s.limit.told())
		}),
		gauge("imap_asking", "Connections that count for others now.", func() float64 { s.asking.mu.Lock(); defer s.asking.mu.Unlock(); return float64(s.asking.used) }),
		gauge("imap_server_trouble", "0: the mail server lets us in; 1: it can't be reached; 2: it refuses every login; 3: it lets nobody in, for another reason.", func() float64 {
			return float64(s.gate.state())
		}),
	} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) connected(c connect) { m.connects[c].Inc() }

func (m *metrics) watched(o mode, by float64) { m.watching[o].Add(by) }
