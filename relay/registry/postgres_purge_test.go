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
	if b.queries != 7 || len(b.endless) > 0 {
		t.Errorf("%d queries, without a bound are %q; want 7 that end", b.queries, b.endless)
	}
}

// TestPostgresPurgeKeepsTheNewestChanges purges when all changes are old by the
// clock, as one that is days ahead has it. That is the database's: the relay's
// has said another year since its start.
func TestPostgresPurgeKeepsTheNewestChanges(t *testing.T) {
	server := postgrestest.Start(t)
	database := server.Database()
	p, err := OpenPostgres(t.Context(), PostgresConfig{URL: server.URL(database)})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.clock.wall = p.clock.wall.AddDate(-10, 0, 0)
	aDayAgo := `(SELECT ` + pgNow + ` - 24 * 3600 * 1000)`
	server.Exec(database, `INSERT INTO changes (id, made_at, data) SELECT id, `+aDayAgo+`, '{}' FROM generate_series(1, 1500) id`)
	server.Exec(database, `INSERT INTO relays (name, started_at, seen_at, stopped, status)
		VALUES ('gone', 0, `+aDayAgo+`, false, ''), ('there', 0, `+aDayAgo+` + 60000, false, '')`)
	server.Exec(database, `INSERT INTO inquiry_answers VALUES ('1', 'late', `+aDayAgo+`, ''), ('2', 'awaited', (SELECT `+pgNow+`), '')`)
	if err := p.purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	var first, last, n int
	if err := p.pool.QueryRow(t.Context(), `SELECT min(id), max(id), count(*) FROM changes`).Scan(&first, &last, &n); err != nil {
		t.Fatal(err)
	}
	if first != 501 || last != 1500 || n != 1000 {
		t.Errorf("%d changes are left, %d to %d, want 501 to 1500", n, first, last)
	}
	var left string
	if err := p.pool.QueryRow(t.Context(), `SELECT string_agg(name, ' ') FROM relays`).Scan(&left); err != nil || left != "there" {
		t.Errorf("relays left: %q, %v; want only the one that spoke within a day", left, err)
	}
	if err := p.pool.QueryRow(t.Context(), `SELECT string_agg(relay, ' ') FROM inquiry_answers`).Scan(&left); err != nil || left != "awaited" {
		t.Errorf("answers left: %q, %v; want only the one that somebody may wait for", left, err)
	}
}
