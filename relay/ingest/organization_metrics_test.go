package ingest

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/auth"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/registry"
)

func TestMetricsByOrganizationWhereWanted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		w := newWorld(t, func(c *Config) { c.Registerer, c.OrganizationMetrics = reg, true })
		want := func(name, organization string, want float64) {
			t.Helper()
			if got, found := sample(t, reg, name, map[string]string{"organization": organization}); !found || got != want {
				t.Errorf("%s of %s is %v, %v; want %v", name, organization, got, found, want)
			}
		}
		fabrikam, contoso := w.enrol("fabrikam.com", testKey(0)), w.enrol("contoso.com", testKey(1))
		a := fabrikam.connect()
		a.batch(1, &pb.Event{Mailbox: "ann"}, &pb.Event{Mailbox: "bob"})
		a.settled(2)
		contoso.connect()
		want("ingest_organization_events_total", "fabrikam.com", 2)
		want("ingest_organization_streams", "fabrikam.com", 1)
		want("ingest_organization_events_total", "contoso.com", 0)
		want("ingest_organization_streams", "contoso.com", 1)

		w.server.registryChanged([]registry.Change{{Kind: registry.ChangeOrganizationRemoved, Organization: fabrikam.id}})
		if _, found := sample(t, reg, "ingest_organization_events_total", map[string]string{"organization": "fabrikam.com"}); found {
			t.Error("an organization that was removed is still counted")
		}
	})
}

// TestMetricsOfAnOrganizationEnrolledAgain has a stream read one more batch after
// its organization was removed.
func TestMetricsOfAnOrganizationEnrolledAgain(t *testing.T) {
	m := newOrganizationMetrics(newSessions(&Config{}, &metrics{}))
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(m)
	want := func(want float64, found bool) {
		t.Helper()
		got, ok := sample(t, reg, "ingest_organization_events_total", map[string]string{"organization": "fabrikam.com"})
		if got != want || ok != found {
			t.Errorf("got %v, %v, want %v, %v", got, ok, want, found)
		}
	}
	was, is := &auth.Principal{OrganizationID: 1, Organization: "fabrikam.com"}, &auth.Principal{OrganizationID: 2, Organization: "fabrikam.com"}
	m.open(was)
	m.add(was, 1)
	want(1, true)
	m.forget(1)
	m.add(was, 2)
	want(0, false)
	m.open(is)
	m.add(is, 3)
	want(3, true)
	m.open(was) // a call that was let in just before
	m.add(was, 4)
	want(7, true)
}

func TestNoOrganizationIsNamedUnlessWanted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		w := newWorld(t, func(c *Config) { c.Registerer = reg })
		w.enrol("fabrikam.com", testKey(0)).connect()
		found, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range found {
			for _, m := range family.GetMetric() {
				for _, l := range m.GetLabel() {
					if l.GetName() == "organization" {
						t.Errorf("%s is labelled by organization", family.GetName())
					}
				}
			}
		}
	})
}
