package registry

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"badgerelay/relay/registry/postgrestest"
)

// bounds counts queries, and keeps those that may take for ever. It is used
// with one connection that is open.
type bounds struct {
	queries int
	endless []string
}

// TraceQueryStart implements pgx.QueryTracer.
func (b *bounds) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	b.queries++
	if _, ok := ctx.Deadline(); !ok {
		b.endless = append(b.endless, q.SQL)
	}
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (*bounds) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestPostgresPurgeIsBounded(t *testing.T) {
	server := postgrestest.Start(t)
	c := PostgresConfig{URL: server.URL(server.Database()), SubscriptionLifetime: time.Hour}
	p, err := OpenPostgres(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	p.pool.Close()
	config, err := c.pool()
	if err != nil {
		t.Fatal(err)
	}
	b := &bounds{}
	config.ConnConfig.Tracer = b
	if p.pool, err = pgxpool.NewWithConfig(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	defer p.pool.Close()
	if err := p.pool.Ping(t.Context()); err != nil { // connects
		t.Fatal(err)
	}
	*b = bounds{}
	if err := p.purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.queries != 4 || len(b.endless) > 0 {
		t.Errorf("%d queries, without a bound are %q; want 4 that end", b.queries, b.endless)
	}
}
