package apns

import (
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Labels of pushes that are not a reason.
const (
	labelAccepted = "accepted"
	labelOther    = "other" // reasons that Apple's page does not name
)

// Metrics holds the metrics of all pools of a process. A nil *Metrics counts
// nothing.
type Metrics struct {
	pushes *prometheus.CounterVec

	mu    sync.Mutex // a few memory operations
	pools map[*Pool]struct{}
}

// NewMetrics registers the metrics. Names carry no prefix.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apns_pushes_total",
			Help: "Pushes by app and result: accepted, Apple's reason of refusal, or ours for what got no answer; ForeignAnswer is an answer that is not Apple's, such as a proxy's page.",
		}, []string{"app", "reason"}),
		pools: make(map[*Pool]struct{}),
	}
	for _, c := range []prometheus.Collector{m.pushes, m} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append([]string{"app"}, labels...), nil)
}

// gauges are the metrics that are read off the pools when scraped.
var gauges = struct {
	connections, granted, inFlight, connects, state, tokenAge, certificateEnd *prometheus.Desc
}{
	describe("apns_connections", "Connections that take work."),
	describe("apns_streams_granted", "Pushes that may be in flight at once."),
	describe("apns_pushes_in_flight", "Pushes sent and not yet answered."),
	describe("apns_connects_total", "Attempts to connect.", "result"),
	describe("apns_state", "1 for the state the app's pool is in; connecting: no connection is open and none has failed.", "state"),
	describe("apns_provider_token_age_seconds", "Age of the provider token in use; it is renewed at 50 minutes."),
	describe("apns_certificate_expiry_timestamp_seconds", "When the client certificate expires."),
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{gauges.connections, gauges.granted, gauges.inFlight,
		gauges.connects, gauges.state, gauges.tokenAge, gauges.certificateEnd} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	pools := slices.Collect(maps.Keys(m.pools))
	m.mu.Unlock()
	seen := make(map[string]bool)
	for _, p := range pools {
		if !seen[p.config.App] { // while one pool of an app replaces another
			seen[p.config.App] = true
			collect(ch, p.Stats())
		}
	}
}

func collect(ch chan<- prometheus.Metric, s Stats) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{s.App}, labels...)...)
	}
	gauge(gauges.connections, float64(s.Connections))
	gauge(gauges.granted, float64(s.StreamsGranted))
	gauge(gauges.inFlight, float64(s.InFlight))
	for result, n := range map[string]int64{"ok": s.Connects - s.ConnectsFailed, "failed": s.ConnectsFailed} {
		ch <- prometheus.MustNewConstMetric(gauges.connects, prometheus.CounterValue, float64(max(n, 0)), s.App, result)
	}
	for _, state := range []State{StateConnecting, StateUp, StateOutage, StateRefused} {
		v := 0.0
		if s.State == state {
			v = 1
		}
		gauge(gauges.state, v, state.String())
	}
	if s.CertificateEnd.IsZero() {
		gauge(gauges.tokenAge, s.TokenAge.Seconds())
	} else {
		gauge(gauges.certificateEnd, float64(s.CertificateEnd.Unix()))
	}
}

func (m *Metrics) add(p *Pool) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pools[p] = struct{}{}
}

func (m *Metrics) remove(p *Pool) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pools, p)
}

// reasonCounters are one app's counters of pushes, looked up once. It never
// changes; nil counts nothing.
type reasonCounters struct {
	ok, other prometheus.Counter
	known     map[Reason]prometheus.Counter
}

func (m *Metrics) reasons(app string) *reasonCounters {
	if m == nil {
		return nil
	}
	c := &reasonCounters{
		ok:    m.pushes.WithLabelValues(app, labelAccepted),
		other: m.pushes.WithLabelValues(app, labelOther),
		known: make(map[Reason]prometheus.Counter, len(verdicts)),
	}
	for i := range verdicts {
		c.known[verdicts[i].reason] = m.pushes.WithLabelValues(app, string(verdicts[i].reason))
	}
	return c
}

func (c *reasonCounters) accepted(n int) {
	if c != nil && n > 0 {
		c.ok.Add(float64(n))
	}
}

func (c *reasonCounters) refused(r Reason) {
	if c == nil {
		return
	}
	if counter, ok := c.known[r]; ok {
		counter.Inc()
		return
	}
	c.other.Inc()
}
