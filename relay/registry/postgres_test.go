package registry_test

import (
	"errors"
	"strings"
	"testing"

	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
	"badgerelay/relay/registry/registrytest"
)

func TestPostgresConformance(t *testing.T) {
	server := postgrestest.Start(t)
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		return openPostgres(t, registry.PostgresConfig{URL: server.URL(server.Database())})
	})
}

func TestPostgresURL(t *testing.T) {
	for query, want := range map[string]string{
		"":                                       "",
		"pool_max_conns=2":                       "",
		"pool_max_conns=1":                       "pool_max_conns",
		"default_query_exec_mode=cache_describe": "",
		"default_query_exec_mode=exec":           `"exec"`,
		"default_query_exec_mode=simple_protocol": "simple protocol",
		"default_query_exec_mode=unheard_of":      "can't be read",
	} {
		err := registry.CheckPostgresURL("postgres://db.example.com/badgerelay?" + query)
		invalid, _ := errors.AsType[*registry.InvalidError](err)
		if want == "" && err != nil || want != "" && (invalid == nil || invalid.Field != "url" || !strings.Contains(invalid.Detail, want)) {
			t.Errorf("%s: got %v, want an *InvalidError of the url with %q", query, err, want)
		}
	}
	err := registry.CheckPostgresURL("")
	if _, ok := errors.AsType[*registry.InvalidError](err); !ok {
		t.Errorf("without a URL: got %v, want an *InvalidError", err)
	}
}

// TestPostgresOnTwoConnections starts with the least that is allowed, and in
// the other mode that reads binary values.
func TestPostgresOnTwoConnections(t *testing.T) {
	server := postgrestest.Start(t)
	p := openPostgres(t, registry.PostgresConfig{URL: server.URL(server.Database()) + "&pool_max_conns=2&default_query_exec_mode=cache_describe"})
	o, err := p.AddOrganization(t.Context(), registry.NewOrganization{Name: "fabrikam.com"})
	if err != nil {
		t.Fatal(err)
	}
	subscribe(t, p, o.ID, 1)
	rows := 0
	err = p.Scan(t.Context(), func(batch []registry.Entry) error { rows += len(batch); return nil })
	if err != nil || rows != 1 {
		t.Errorf("scanned %d, %v, want 1", rows, err)
	}
}

// openPostgres opens a database and closes it at the end of the test.
func openPostgres(t testing.TB, c registry.PostgresConfig) *registry.Postgres {
	t.Helper()
	p, err := registry.OpenPostgres(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return p
}
