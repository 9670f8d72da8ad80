package registry

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"badgerelay/relay"
)

// countingConn counts what is sent to the server: pgx sends in one write what it
// does not have to wait for an answer for.
type countingConn struct {
	net.Conn
	sent *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) {
	c.sent.Add(1)
	return c.Conn.Write(b)
}

// TestPostgresHotPathsTakeOneTrip counts how often a call waits for the server,
// once its statements are prepared.
func TestPostgresHotPathsTakeOneTrip(t *testing.T) {
	var sent atomic.Int64
	p := openAdjusted(t, PostgresConfig{}, func(c *pgxpool.Config) {
		c.MaxConns = 1
		dial := c.ConnConfig.DialFunc
		c.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			return countingConn{conn, &sent}, err
		}
	})
	keys := make([]relay.MailboxKey, lookupBatch)
	for i := range keys {
		keys[i] = relay.MailboxKey{Organization: 1, Mailbox: fmt.Sprint(i)}
	}
	for name, call := range map[string]func(ctx context.Context) error{
		"look-up of a batch":   func(ctx context.Context) error { _, err := p.Lookup(ctx, keys); return err },
		"credentials":          func(ctx context.Context) error { _, err := p.CredentialsByX5T(ctx, [20]byte{1}); return err },
		"use of credentials":   func(ctx context.Context) error { return p.TouchCredentials(ctx, map[string]time.Time{"a": time.Now()}) },
		"changes of others":    p.catchUp,
		"presence":             func(ctx context.Context) error { return p.Announce(ctx, Presence{Name: "a", Status: []byte("s")}) },
		"organization by id":   func(ctx context.Context) error { _, _ = p.OrganizationByID(ctx, 1); return nil },
		"mailboxes of a watch": func(ctx context.Context) error { _, err := p.Mailboxes(ctx, 1, "", 1000); return err },
	} {
		for range 2 { // the first prepares
			sent.Store(0)
			if err := call(t.Context()); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if n := sent.Load(); n != 1 {
			t.Errorf("%s: %d trips, want 1", name, n)
		}
	}
}
