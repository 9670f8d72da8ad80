package ingest

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/auth"
	"badgerelay/relay"
)

// tally counts by organization, where the operator wants that. A nil *tally
// counts nothing. All methods are safe for concurrent use.
type tally struct {
	sessions *sessions

	mu   sync.Mutex // guards orgs; never held while sessions' is taken
	orgs map[relay.OrganizationID]*orgTally
}

type orgTally struct {
	name   string
	events uint64
}

var tallies = struct{ events, streams *prometheus.Desc }{
	prometheus.NewDesc("ingest_organization_events_total", "Events taken, by organization.", []string{"organization"}, nil),
	prometheus.NewDesc("ingest_organization_streams", "Agent streams open, by organization.", []string{"organization"}, nil),
}

func newTally(s *sessions) *tally {
	return &tally{sessions: s, orgs: map[relay.OrganizationID]*orgTally{}}
}

// add counts events; none makes the organization known.
func (t *tally) add(p *auth.Principal, events int) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	org := t.orgs[relay.OrganizationID(p.OrganizationID)]
	if org == nil {
		org = &orgTally{name: p.Organization}
		t.orgs[relay.OrganizationID(p.OrganizationID)] = org
	}
	org.events += uint64(events)
}

// forget ends the series of an organization that was removed.
func (t *tally) forget(org relay.OrganizationID) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.orgs, org)
}

// Describe implements prometheus.Collector.
func (t *tally) Describe(ch chan<- *prometheus.Desc) {
	ch <- tallies.events
	ch <- tallies.streams
}

// Collect implements prometheus.Collector.
func (t *tally) Collect(ch chan<- prometheus.Metric) {
	t.mu.Lock()
	orgs := make(map[relay.OrganizationID]orgTally, len(t.orgs))
	for id, org := range t.orgs {
		orgs[id] = *org
	}
	t.mu.Unlock()
	for id, org := range orgs {
		streams := t.sessions.count(id, sessionStream)
		ch <- prometheus.MustNewConstMetric(tallies.events, prometheus.CounterValue, float64(org.events), org.name)
		ch <- prometheus.MustNewConstMetric(tallies.streams, prometheus.GaugeValue, float64(streams), org.name)
	}
}
