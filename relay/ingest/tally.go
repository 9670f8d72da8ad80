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
	prometheus.NewDesc("ingest_organization_events_total", "Events taken, by organization; only with ops.per_organization.", []string{"organization"}, nil),
	prometheus.NewDesc("ingest_organization_streams", "Agent streams open, by organization; only with ops.per_organization.", []string{"organization"}, nil),
}

func newTally(s *sessions) *tally {
	return &tally{sessions: s, orgs: map[relay.OrganizationID]*orgTally{}}
}

// open makes the organization known: a call of it was let in.
func (t *tally) open(p *auth.Principal) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	id := relay.OrganizationID(p.OrganizationID)
	if t.orgs[id] == nil {
		t.orgs[id] = &orgTally{name: p.Organization}
	}
}

// add counts events, unless the organization was removed: a stream may read one
// more batch after that.
func (t *tally) add(p *auth.Principal, events int) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if org := t.orgs[relay.OrganizationID(p.OrganizationID)]; org != nil {
		org.events += uint64(events)
	}
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

// Collect implements prometheus.Collector. It sums by name, because one that is
// enrolled again has another id, and two series of one name would fail the
// whole scrape.
func (t *tally) Collect(ch chan<- prometheus.Metric) {
	type sums struct{ events, streams float64 }
	byName := map[string]sums{}
	for id, org := range t.snapshot() {
		sum := byName[org.name]
		sum.events += float64(org.events)
		sum.streams += float64(t.sessions.count(id, sessionStream))
		byName[org.name] = sum
	}
	for name, sum := range byName {
		ch <- prometheus.MustNewConstMetric(tallies.events, prometheus.CounterValue, sum.events, name)
		ch <- prometheus.MustNewConstMetric(tallies.streams, prometheus.GaugeValue, sum.streams, name)
	}
}

func (t *tally) snapshot() map[relay.OrganizationID]orgTally {
	t.mu.Lock()
	defer t.mu.Unlock()
	orgs := make(map[relay.OrganizationID]orgTally, len(t.orgs))
	for id, org := range t.orgs {
		orgs[id] = *org
	}
	return orgs
}
