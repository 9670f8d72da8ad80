package agent

import (
	"testing"
	"testing/synctest"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newFakeNet(t)
		relay := network.start("a")
		cfg := network.config("a")
		registry := prometheus.NewRegistry()
		cfg.Metrics = registry
		h := run(t, cfg)
		s := relay.welcome(&badgerelayv1.Welcome{})
		h.set("ann", 1)
		h.set("bob", 1)
		s.batch(1, "ann=1", "bob=1")
		h.set("bob", 2)
		s.settle(1, outcome(1, badgerelayv1.Outcome_OUTCOME_STALE))
		got := gather(t, registry)
		for name, want := range map[string]float64{
			"agent_events_submitted_total": 3, "agent_events_replaced_total": 1, "agent_unsettled": 1, "agent_connected": 1,
			"agent_events_settled_total/stale": 1, "agent_events_settled_total/delivered": 0, "agent_streams_opened_total": 1,
			"agent_stream_failures_total/refused": 0,
		} {
			if value, ok := got[name]; !ok || value != want {
				t.Errorf("%s is %v (there: %t), want %v", name, value, ok, want)
			}
		}
		if _, err := New(cfg); err == nil {
			t.Error("a second agent took the same registerer, want an error")
		}
	})
}

// gather returns counters and gauges by name, or name/label where labelled.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += "/" + l.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}
