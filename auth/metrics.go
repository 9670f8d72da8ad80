package auth

import "github.com/prometheus/client_golang/prometheus"

// validatorMetrics counts what a Validator does.
type validatorMetrics struct {
	refusals [reasonCount]prometheus.Counter
	accepted prometheus.Counter
	hits     prometheus.Counter
	failures prometheus.Counter
}

func newValidatorMetrics(registerer prometheus.Registerer, entries func() float64) (*validatorMetrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	refusals := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "token_refusals_total", Help: "Tokens refused, by reason.",
	}, []string{"reason"})
	m := &validatorMetrics{
		accepted: counter("tokens_accepted_total", "Tokens accepted, those from the cache included."),
		hits:     counter("token_cache_hits_total", "Tokens accepted from the cache, without a signature check."),
		failures: counter("token_key_lookup_failures_total", "Tokens not decided because the look-up of the key failed."),
	}
	for _, r := range Reasons() {
		m.refusals[r] = refusals.WithLabelValues(r.String())
	}
	size := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "token_cache_entries", Help: "Validated tokens remembered.",
	}, entries)
	return m, register(registerer, refusals, m.accepted, m.hits, m.failures, size)
}

func (m *validatorMetrics) refused(r Reason) { m.refusals[r].Inc() }

// register registers all of them, or none where there is no registerer.
func register(registerer prometheus.Registerer, collectors ...prometheus.Collector) error {
	if registerer == nil {
		return nil
	}
	for _, c := range collectors {
		if err := registerer.Register(c); err != nil {
			return err
		}
	}
	return nil
}
