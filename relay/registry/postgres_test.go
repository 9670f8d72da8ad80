package registry_test

import (
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
