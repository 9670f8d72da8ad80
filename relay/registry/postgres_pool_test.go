package registry

import (
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// TestPostgresWritersLeaveAConnectionToTell has as many writers at once as there
// are connections. Who tells of a commit reads the changes on another one.
func TestPostgresWritersLeaveAConnectionToTell(t *testing.T) {
	const writers = 20
	p := openAdjusted(t, PostgresConfig{}, func(c *pgxpool.Config) { c.MaxConns = 2 })
	o, err := p.AddOrganization(t.Context(), NewOrganization{Name: "fabrikam.com"})
	if err != nil {
		t.Fatal(err)
	}
	rs := make([]Registration, writers)
	for i := range rs {
		rs[i] = registration(i)
	}
	if _, err := p.ImportSubscriptions(t.Context(), o.ID, rs); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	began := time.Now()
	for _, r := range rs {
		wg.Go(func() {
			if err := p.Unsubscribe(t.Context(), o.ID, r); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took >= callTimeout {
		t.Errorf("took %v: somebody waited for a connection until its time was over", took)
	}
}
