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

// openAdjusted opens a new database with connections that the test may watch.
func openAdjusted(t *testing.T, c PostgresConfig, adjust func(*pgxpool.Config)) *Postgres {
	t.Helper()
	server := postgrestest.Start(t)
	c.URL = server.URL(server.Database())
	p, err := OpenPostgres(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	p.pool.Close()
	config, err := c.pool()
	if err != nil {
		t.Fatal(err)
	}
	adjust(config)
	if p.pool, err = pgxpool.NewWithConfig(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.pool.Close)
	return p
}

func TestPostgresPurgeIsBounded(t *testing.T) {
	b := &bounds{}
	p := openAdjusted(t, PostgresConfig{SubscriptionLifetime: time.Hour}, func(c *pgxpool.Config) { c.ConnConfig.Tracer = b })
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
