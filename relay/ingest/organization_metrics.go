package ingest

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/auth"
	"badgerelay/relay"
)

// organizationMetrics counts by organization, where the operator wants that. A nil
// *organizationMetrics counts nothing. All methods are safe for concurrent use.
type organizationMetrics struct {
	sessions *sessions

	mu   sync.Mutex // guards orgs; never held while sessions' is taken
	orgs map[relay.OrganizationID]*organizationCounts
}

type organizationCounts struct {
	name   string
	events uint64
}

var organizationDescs = struct{ events, streams *prometheus.Desc }{
	prometheus.NewDesc("ingest_organization_events_total", "Events taken, by organization; only with ops.per_organization.", []string{"organization"}, nil),
	prometheus.NewDesc("ingest_organization_streams", "Agent streams open, by organization; only with ops.per_organization.", []string{"organization"}, nil),
}

func newOrganizationMetrics(s *sessions) *organizationMetrics {
	return &organizationMetrics{sessions: s, orgs: map[relay.OrganizationID]*organizationCounts{}}
}

// open makes the organization known: a call of it was let in.
func (m *organizationMetrics) open(p *auth.Principal) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	id := relay.OrganizationID(p.OrganizationID)
	if m.orgs[id] == nil {
		m.orgs[id] = &organizationCounts{name: p.Organization}
	}
}

// add counts events, unless the organization was removed: a stream may read one
// more batch after that.
func (m *organizationMetrics) add(p *auth.Principal, events int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if org := m.orgs[relay.OrganizationID(p.OrganizationID)]; org != nil {
		org.events += uint64(events)
	}
}

// forget ends the series of an organization that was removed.
func (m *organizationMetrics) forget(org relay.OrganizationID) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.orgs, org)
}

// Describe implements prometheus.Collector.
func (m *organizationMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- organizationDescs.events
	ch <- organizationDescs.streams
}

// Collect implements prometheus.Collector. It sums by name, because one that is
// enrolled again has another id, and two series of one name would fail the
// whole scrape.
func (m *organizationMetrics) Collect(ch chan<- prometheus.Metric) {
	type sums struct{ events, streams float64 }
	byName := map[string]sums{}
	for id, org := range m.snapshot() {
		sum := byName[org.name]
		sum.events += float64(org.events)
		sum.streams += float64(m.sessions.count(id, sessionStream))
		byName[org.name] = sum
	}
	for name, sum := range byName {
		ch <- prometheus.MustNewConstMetric(organizationDescs.events, prometheus.CounterValue, sum.events, name)
		ch <- prometheus.MustNewConstMetric(organizationDescs.streams, prometheus.GaugeValue, sum.streams, name)
	}
}

func (m *organizationMetrics) snapshot() map[relay.OrganizationID]organizationCounts {
	m.mu.Lock()
	defer m.mu.Unlock()
	orgs := make(map[relay.OrganizationID]organizationCounts, len(m.orgs))
	for id, org := range m.orgs {
		orgs[id] = *org
	}
	return orgs
}
