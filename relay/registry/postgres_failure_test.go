package registry_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// eventually tries until f succeeds, as one does with a real server that is
// coming back.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(testTimeout)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond) // a real server, not a bubble
	}
}

// TestPostgresAway stops the server under two relays; both go on when it is back.
func TestPostgresAway(t *testing.T) {
	server := postgrestest.Start(t)
	c := registry.PostgresConfig{URL: server.URL(server.Database()), PollInterval: 50 * time.Millisecond}
	a, b := join(t, c, false), join(t, c, false)
	org := a.org()
	subscribe(t, a, org, 1)
	for _, stop := range []func(){server.Stop, server.Kill} {
		stop()
		if _, err := a.Subscribe(t.Context(), org, numbered(0, 2)); !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("subscribe: got %v, want ErrUnavailable", err)
		}
		if _, err := a.Lookup(t.Context(), []relay.MailboxKey{{Organization: org, Mailbox: "x"}}); !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("lookup: got %v, want ErrUnavailable", err)
		}
		if err := a.Scan(t.Context(), func([]registry.Entry) error { return nil }); !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("scan: got %v, want ErrUnavailable", err)
		}
		if _, err := registry.OpenPostgres(t.Context(), c); !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("open: got %v, want ErrUnavailable", err)
		}
		server.Start()
		eventually(t, "subscribe when it is back", func() error {
			_, err := a.Subscribe(t.Context(), org, numbered(0, 2))
			return err
		})
		b.learns("it", is(registry.ChangeSubscribed, numbered(0, 2).Mailbox))
		if err := a.Unsubscribe(t.Context(), org, numbered(0, 2)); err != nil {
			t.Error(err)
		}
		b.learns("its end", is(registry.ChangeUnsubscribed, numbered(0, 2).Mailbox))
		b.mu.Lock()
		b.all = nil
		b.mu.Unlock()
	}
}

// TestPostgresReadOnly has the server take no writes, as a standby does, or a
// primary whose operator has stopped them.
func TestPostgresReadOnly(t *testing.T) {
	server := postgrestest.Start(t)
	a := join(t, registry.PostgresConfig{URL: server.URL(server.Database()), PollInterval: 50 * time.Millisecond}, false)
	org := a.org()
	subscribe(t, a, org, 1)
	readOnly := func(on string) {
		t.Helper()
		for _, statement := range []string{"ALTER SYSTEM SET default_transaction_read_only = " + on, "SELECT pg_reload_conf()"} {
			server.Exec("postgres", statement)
		}
	}
	readOnly("on")
	eventually(t, "is read-only", func() error {
		_, err := a.Subscribe(t.Context(), org, numbered(0, 2))
		if err == nil {
			return errors.Join(errors.New("it still writes"), a.Unsubscribe(t.Context(), org, numbered(0, 2)))
		}
		if !errors.Is(err, registry.ErrUnavailable) {
			t.Fatalf("subscribe: got %v, want ErrUnavailable", err)
		}
		return nil
	})
	readOnly("off")
	eventually(t, "subscribe when it writes again", func() error {
		_, err := a.Subscribe(t.Context(), org, numbered(0, 2))
		return err
	})
}

// TestPostgresFailover kills the server in the midst of registrations, and
// promotes its standby: what was acknowledged is there.
func TestPostgresFailover(t *testing.T) {
	first := postgrestest.Start(t)
	name := first.Database()
	second := first.Standby()
	c := registry.PostgresConfig{URL: postgrestest.URL(name, first, second), PollInterval: 50 * time.Millisecond}
	a, b := joinThroughFailover(t, c), joinThroughFailover(t, c)
	wantFailoverLoses(t, a, false)
	org := a.org()

	const before, after = 40, 40
	var mu sync.Mutex
	var acknowledged []int
	enough, done := make(chan struct{}), make(chan struct{})
	note := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		acknowledged = append(acknowledged, n)
		switch len(acknowledged) {
		case before:
			close(enough)
		case before + after:
			close(done)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup // ends with ctx
	for g, r := range []*replica{a, b, a, b} {
		wg.Go(func() {
			for n := g; ctx.Err() == nil; n += 4 {
				if _, err := r.current().Subscribe(ctx, org, numbered(0, n)); err == nil {
					note(n)
				} else if ctx.Err() == nil && !errors.Is(err, registry.ErrUnavailable) {
					t.Errorf("subscribe: %v", err)
				}
			}
		})
	}
	wait := func(c <-chan struct{}, what string) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(testTimeout):
			t.Fatalf("registrations never %s", what)
		}
	}
	wait(enough, "went well")
	first.Kill()
	second.Promote()
	wait(done, "went on after the failover")
	cancel()
	wg.Wait()

	keys := make([]relay.MailboxKey, len(acknowledged))
	for i, n := range acknowledged {
		keys[i] = relay.MailboxKey{Organization: org, Mailbox: numbered(0, n).Mailbox}
	}
	found, err := b.current().Lookup(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for _, subs := range found {
		if len(subs) != 1 {
			lost++
		}
	}
	t.Logf("%d registrations acknowledged, %d lost", len(acknowledged), lost)
	if lost > 0 {
		t.Errorf("lost %d of %d acknowledged registrations", lost, len(acknowledged))
	}
	for _, n := range acknowledged {
		mailbox := numbered(0, n).Mailbox
		a.until("learned of "+mailbox, func() bool { return a.live[mailbox] })
		b.until("learned of "+mailbox, func() bool { return b.live[mailbox] })
	}
}
