package registry_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"badgerelay/relay"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// testTimeout is how long a test waits for what another process does; machines of
// tests are busy.
const testTimeout = 30 * time.Second

// replica is one of several relays' registries, with what its listeners were
// told.
type replica struct {
	*registry.Postgres
	t *testing.T

	mu   sync.Mutex // guards what follows
	all  []registry.Change
	live map[string]bool // of mailboxes, by the changes alone
	news chan struct{}   // one slot

	restarted *registry.Postgres // in place of the first, of joinThroughFailover
}

// join opens the database as one more relay, running unless idle.
func join(t *testing.T, c registry.PostgresConfig, idle bool) *replica {
	t.Helper()
	r := &replica{Postgres: openPostgres(t, c), t: t, live: map[string]bool{}, news: make(chan struct{}, 1)}
	r.OnChange(r.take)
	if idle {
		return r
	}
	r.keepsUp(func(ctx context.Context) error { return r.Run(ctx) })
	return r
}

// joinThroughFailover joins as a process does that is started again where a
// standby has taken over that lacks changes which the process had read: a killed
// primary shows others a commit before the standby has it.
func joinThroughFailover(t *testing.T, c registry.PostgresConfig) *replica {
	t.Helper()
	r := join(t, c, true)
	r.keepsUp(func(ctx context.Context) error {
		err := r.Run(ctx)
		for ctx.Err() == nil && (errors.Is(err, registry.ErrChangesMissed) || errors.Is(err, registry.ErrUnavailable)) {
			t.Logf("started again: %v", err)
			err = r.startAgain(ctx, c)
		}
		return err
	})
	return r
}

// startAgain opens the database anew, reads all that is there, and follows it
// until ctx is done.
func (r *replica) startAgain(ctx context.Context, c registry.PostgresConfig) error {
	p, err := registry.OpenPostgres(ctx, c)
	if err != nil {
		return err
	}
	r.t.Cleanup(func() { _ = p.Close() }) // that of join is the one that is checked
	p.OnChange(r.take)
	live := map[string]bool{}
	err = p.Scan(ctx, func(entries []registry.Entry) error {
		for _, e := range entries {
			live[e.Key.Mailbox] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.live, r.restarted = live, p
	r.mu.Unlock()
	r.hasNews()
	return p.Run(ctx)
}

// current is the registry of the process that runs now.
func (r *replica) current() *registry.Postgres {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.restarted != nil {
		return r.restarted
	}
	return r.Postgres
}

// keepsUp has run go on until the test's end, and fails it on an error.
func (r *replica) keepsUp(run func(context.Context) error) {
	t := r.t
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }() // ends with ctx
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

func (r *replica) take(changes []registry.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, changes...)
	for _, c := range changes {
		if c.Mailbox != "" {
			r.live[c.Mailbox] = c.Live
		}
	}
	r.hasNews()
}

func (r *replica) hasNews() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// learns waits until a change was told that fits.
func (r *replica) learns(what string, fits func(registry.Change) bool) {
	r.t.Helper()
	r.until("learned of "+what, func() bool { return slices.ContainsFunc(r.all, fits) })
}

// until waits until a condition on what was told holds.
func (r *replica) until(what string, holds func() bool) {
	r.t.Helper()
	timeout := time.After(testTimeout)
	for {
		r.mu.Lock()
		ok := holds()
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-r.news:
		case <-timeout:
			r.t.Fatalf("the other relay never %s", what)
		}
	}
}

func (r *replica) org() relay.OrganizationID {
	r.t.Helper()
	o, err := r.AddOrganization(r.t.Context(), registry.NewOrganization{Name: "fabrikam.com"})
	if err != nil {
		r.t.Fatal(err)
	}
	return o.ID
}

func is(kind registry.ChangeKind, mailbox string) func(registry.Change) bool {
	return func(c registry.Change) bool { return c.Kind == kind && c.Mailbox == mailbox }
}

func TestPostgresReplicas(t *testing.T) {
	server := postgrestest.Start(t)
	hour := func() registry.PostgresConfig { // so that only a notification can be the reason
		return registry.PostgresConfig{URL: server.URL(server.Database()), PollInterval: time.Hour}
	}
	t.Run("notified", func(t *testing.T) {
		c := hour()
		a, b := join(t, c, false), join(t, c, false)
		testLearns(t, a, b)
	})
	t.Run("polling", func(t *testing.T) {
		c := hour()
		a := join(t, c, true) // it does not run, so it notifies nobody
		c.PollInterval = 20 * time.Millisecond
		testLearns(t, a, join(t, c, false))
	})
	t.Run("order", func(t *testing.T) {
		c := hour()
		testReplicaOrder(t, join(t, c, false), join(t, c, false))
	})
	t.Run("late commit", func(t *testing.T) {
		c := hour()
		testLateCommit(t, c, join(t, c, false))
	})
	t.Run("late commit of a transaction that began later", func(t *testing.T) {
		c := hour()
		c.PollInterval = 20 * time.Millisecond
		testLateCommitOfNewer(t, c, join(t, c, false))
	})
	t.Run("newcomer", func(t *testing.T) {
		c := hour()
		a := join(t, c, false)
		org := a.org()
		subscribe(t, a, org, 1)
		b := join(t, c, false)
		subscribe(t, a, org, 2)
		b.learns("a subscription", is(registry.ChangeSubscribed, numbered(0, 2).Mailbox))
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.all) != 1 {
			t.Errorf("told %v, want only what came after the start", b.all)
		}
	})
	t.Run("newcomer and late commit", func(t *testing.T) {
		c := hour()
		a := join(t, c, false)
		org, late := a.org(), begin(t, c)
		late.tell("late")
		subscribe(t, a, org, 1)
		b := join(t, c, false) // after a change with a higher id
		late.commit()
		subscribe(t, a, org, 2)
		b.learns("the late one", is(registry.ChangeSubscribed, "late"))
	})
	t.Run("standby that lacks changes", func(t *testing.T) {
		database := server.Database()
		a := join(t, registry.PostgresConfig{URL: server.URL(database)}, true)
		subscribe(t, a, a.org(), 1)
		server.Exec(database, "DELETE FROM changes; ALTER SEQUENCE changes_id_seq RESTART")
		ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
		defer cancel()
		if err := a.Run(ctx); !errors.Is(err, registry.ErrChangesMissed) {
			t.Errorf("run: got %v, want ErrChangesMissed", err)
		}
	})
}

func subscribe(t *testing.T, r registry.Registry, org relay.OrganizationID, n int) {
	t.Helper()
	if _, err := r.Subscribe(t.Context(), org, numbered(0, n)); err != nil {
		t.Fatal(err)
	}
}

// testLearns has b learn of all that happens at a, content included.
func testLearns(t *testing.T, a, b *replica) {
	ctx := t.Context()
	org := a.org()
	one := numbered(0, 1)
	subscribe(t, a, org, 1)
	b.learns("a subscription", is(registry.ChangeSubscribed, one.Mailbox))
	if found, err := b.Lookup(ctx, []relay.MailboxKey{{Organization: org, Mailbox: one.Mailbox}}); err != nil || len(found[0]) != 1 {
		t.Errorf("found %v, %v, want what was told", found, err)
	}
	if err := a.Unsubscribe(ctx, org, one); err != nil {
		t.Fatal(err)
	}
	b.learns("its end", is(registry.ChangeUnsubscribed, one.Mailbox))
	off := false
	if _, err := a.UpdateOrganization(ctx, "fabrikam.com", registry.OrganizationUpdate{Enabled: &off}); err != nil {
		t.Fatal(err)
	}
	b.learns("a disabled organization", func(c registry.Change) bool {
		return c.Kind == registry.ChangeOrganizationChanged && c.Organization == org && c.OrganizationName == "fabrikam.com" && !c.OrganizationEnabled
	})
	if err := a.RemoveOrganization(ctx, "fabrikam.com"); err != nil {
		t.Fatal(err)
	}
	b.learns("a removed organization", func(c registry.Change) bool {
		return c.Kind == registry.ChangeOrganizationRemoved && c.Organization == org
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(a.all, b.all) {
		t.Errorf("one was told %v, the other %v", a.all, b.all)
	}
}

// testReplicaOrder has two relays write to one organization at once: by the
// changes alone each knows in the end what is there.
func testReplicaOrder(t *testing.T, a, b *replica) {
	ctx, org := t.Context(), a.org()
	var wg sync.WaitGroup
	for g, r := range []*replica{a, b, a, b} {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(3, uint64(g)))
			for range 30 {
				reg := numbered(0, random.IntN(8)) // the device
				reg.Mailbox = fmt.Sprint("m", random.IntN(5))
				if random.IntN(3) == 0 {
					_ = r.Unsubscribe(ctx, org, reg) // often there is nothing to take off
				} else if _, err := r.Subscribe(ctx, org, reg); err != nil {
					t.Errorf("subscribe: %v", err)
				}
			}
		})
	}
	wg.Wait()
	last := numbered(0, 99)
	subscribe(t, b, org, 99)
	want, err := a.Mailboxes(ctx, org, "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*replica{"a": a, "b": b} {
		r.learns("the last change", is(registry.ChangeSubscribed, last.Mailbox))
		r.mu.Lock()
		var got []string
		for mailbox, live := range r.live {
			if live {
				got = append(got, mailbox)
			}
		}
		r.mu.Unlock()
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("relay %s was told that %q are live, there are %q", name, got, want)
		}
	}
}

// writer is a transaction that tells of mailboxes.
type writer struct {
	pgx.Tx
	t *testing.T
}

// begin begins one, which has its number from here on.
func begin(t *testing.T, c registry.PostgresConfig) writer {
	t.Helper()
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, c.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(ctx)) }) // it has done its work
	tx, err := conn.Begin(ctx)
	if err == nil {
		_, err = tx.Exec(ctx, `SELECT pg_current_xact_id()`)
	}
	if err != nil {
		t.Fatal(err)
	}
	return writer{tx, t}
}

func (w writer) tell(mailbox string) {
	w.t.Helper()
	_, err := w.Exec(w.t.Context(), `INSERT INTO changes (made_at, data) VALUES ($1,
		'{"organization":999,"name":"later.example","since":1,"changes":[{"kind":"subscribed","mailbox":"`+mailbox+`","later":1},{"kind":"unheard of"}]}')`, time.Now().UnixMilli())
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w writer) commit() {
	w.t.Helper()
	if err := w.Commit(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// testLateCommit has a transaction of one organization commit after one of
// another that began later.
func testLateCommit(t *testing.T, c registry.PostgresConfig, r *replica) {
	org := r.org()
	late := begin(t, c)
	late.tell("late")
	subscribe(t, r, org, 1)
	r.learns("its own", is(registry.ChangeSubscribed, numbered(0, 1).Mailbox))
	late.commit()
	subscribe(t, r, org, 2)
	r.learns("the late one", is(registry.ChangeSubscribed, "late"))
	seen := 0
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.all {
		if c.Mailbox == "late" || c.Mailbox == numbered(0, 1).Mailbox {
			seen++
		}
	}
	if seen != 2 {
		t.Errorf("told %d times of two changes: %v", seen, r.all)
	}
}

// testLateCommitOfNewer has a transaction with a higher number draw the lower id,
// and commit after what has the higher id was read.
func testLateCommitOfNewer(t *testing.T, c registry.PostgresConfig, r *replica) {
	older, newer := begin(t, c), begin(t, c)
	newer.tell("newer")
	older.tell("older")
	older.commit()
	r.learns("what committed first", is(registry.ChangeSubscribed, "older"))
	newer.commit()
	r.learns("what committed last", is(registry.ChangeSubscribed, "newer"))
}
