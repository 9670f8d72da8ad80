package registry_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"badgerelay/relay"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/postgrestest"
)

// filledPostgres opens a database with n subscriptions of each organization, on
// a server that waits for the disk.
func filledPostgres(b *testing.B, organizations, n int) (*postgrestest.Private, *registry.Postgres, []relay.OrganizationID) {
	b.Helper()
	postgrestest.Need(b)
	server, err := postgrestest.New("fsync=on", "full_page_writes=on", "shared_buffers=512MB", "max_wal_size=4GB")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = server.Close() }) // what is left of a directory fails nothing
	p := openPostgres(b, registry.PostgresConfig{URL: server.URL("postgres")})
	var all []relay.OrganizationID
	for i := range organizations {
		o, err := p.AddOrganization(b.Context(), registry.NewOrganization{Name: fmt.Sprint("o", i, ".example.com")})
		if err == nil {
			_, err = p.ImportSubscriptions(b.Context(), o.ID, many(n))
		}
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, o.ID)
	}
	return server, p, all
}

func BenchmarkPostgresLookup(b *testing.B) {
	const n = 300_000
	server, p, orgs := filledPostgres(b, 1, n)
	for _, keys := range []int{1, 16, 512} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			wanted := make([]relay.MailboxKey, keys)
			next, before := 0, server.CPU()
			for b.Loop() {
				for i := range wanted {
					next = (next + 7919) % n // all over the table
					wanted[i] = relay.MailboxKey{Organization: orgs[0], Mailbox: fmt.Sprint(0, "/", next)}
				}
				found, err := p.Lookup(b.Context(), wanted)
				if err != nil || len(found[0]) != 1 {
					b.Fatal(found, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*keys), "ns/mailbox")
			b.ReportMetric(float64((server.CPU()-before).Nanoseconds())/float64(b.N*keys), "database-ns/mailbox")
		})
	}
}

// BenchmarkPostgresSubscribe makes registrations and renews them, of one organization and of
// several side by side, by as many callers as a busy relay has. Those of one
// organization that wait for each other share a transaction.
func BenchmarkPostgresSubscribe(b *testing.B) {
	const n, callers = 10_000, 256
	server, p, orgs := filledPostgres(b, 8, n)
	var round atomic.Int64
	for _, several := range []int{1, 8} {
		for _, kind := range []string{"new", "renewed"} {
			b.Run(fmt.Sprintf("organizations=%d/%s", several, kind), func(b *testing.B) {
				var next atomic.Int64
				r := 0
				if kind == "new" {
					r = int(round.Add(1))
				}
				before := server.CPU()
				b.SetParallelism(callers / runtime.GOMAXPROCS(0))
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						i := int(next.Add(1))
						if r == 0 {
							i %= n
						}
						if _, err := p.Subscribe(b.Context(), orgs[i%several], numbered(r, i)); err != nil {
							b.Error(err)
						}
					}
				})
				b.ReportMetric(float64((server.CPU()-before).Nanoseconds())/float64(b.N), "database-ns/op")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			})
		}
	}
	b.Run("feed", func(b *testing.B) { // only a figure: what a change leaves in the table of changes
		conn, err := pgx.Connect(b.Context(), server.URL("postgres"))
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close(b.Context())
		var bytes, rows float64
		for b.Loop() {
			err := conn.QueryRow(b.Context(), `SELECT pg_total_relation_size('changes'), count(*) FROM changes`).Scan(&bytes, &rows)
			if err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(bytes/rows, "bytes/change")
	})
}

func BenchmarkPostgresImport(b *testing.B) {
	const n = 1_000_000
	server, p, orgs := filledPostgres(b, 1, 0)
	rs := many(n)
	b.ResetTimer()
	before, own := server.CPU(), cpuTime()
	if _, err := p.ImportSubscriptions(b.Context(), orgs[0], rs); err != nil { // once: again it would find them
		b.Fatal(err)
	}
	b.ReportMetric(b.Elapsed().Seconds(), "s")
	b.ReportMetric(float64((cpuTime()-own).Nanoseconds())/n, "own-ns/row")
	b.ReportMetric(float64((server.CPU()-before).Nanoseconds())/n, "database-ns/row")
}

// BenchmarkPostgresFeed makes 5,000 changes a second at one of three relays, spread
// over eight organizations, and says how long after its answer each was taken up by the
// other two.
func BenchmarkPostgresFeed(b *testing.B) {
	const perSecond, every = 5000, 10 * time.Millisecond
	server, p, orgs := filledPostgres(b, 8, 0)
	var mu sync.Mutex // guards the maps
	answered, heard := make(map[string]time.Time), [2]map[string]time.Time{}
	for i := range heard {
		heard[i] = make(map[string]time.Time)
		other := openPostgres(b, registry.PostgresConfig{URL: server.URL("postgres")})
		other.OnChange(func(changes []registry.Change) {
			now := time.Now()
			mu.Lock()
			defer mu.Unlock()
			for _, c := range changes {
				heard[i][c.Mailbox] = now
			}
		})
		b.Cleanup(follow(b, other.Run))
	}
	b.Cleanup(follow(b, p.Run))
	before, began := server.CPU(), time.Now()
	var calls sync.WaitGroup
	n := 0
	for tick := 0; b.Loop(); tick++ {
		time.Sleep(time.Until(began.Add(time.Duration(tick) * every)))
		for range perSecond / int(time.Second/every) {
			i := n
			n++
			calls.Go(func() {
				r := numbered(1, i)
				if _, err := p.Subscribe(b.Context(), orgs[i%len(orgs)], r); err != nil {
					b.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				answered[r.Mailbox] = time.Now()
			})
		}
	}
	calls.Wait()
	b.ReportMetric(float64(n)/time.Since(began).Seconds(), "changes/s")
	b.ReportMetric(float64((server.CPU()-before).Nanoseconds())/float64(n), "database-ns/change")
	time.Sleep(2 * time.Second) // more than what is allowed: what is missing then is late
	mu.Lock()
	defer mu.Unlock()
	var lags []time.Duration
	for _, at := range heard {
		for mailbox, answer := range answered {
			if at[mailbox].IsZero() {
				b.Fatalf("%d of %d changes were not heard", len(answered)-len(at), len(answered))
			}
			lags = append(lags, max(0, at[mailbox].Sub(answer)))
		}
	}
	slices.Sort(lags)
	b.ReportMetric(float64(lags[len(lags)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(lags[len(lags)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(lags[len(lags)-1].Microseconds())/1000, "max-ms")
}

// follow runs a registry until the returned function is called.
func follow(b *testing.B, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		if err := run(ctx); err != nil {
			b.Error(err)
		}
	}()
	return func() { cancel(); <-done }
}

func BenchmarkPostgresScan(b *testing.B) {
	const n = 100_000
	server, p, _ := filledPostgres(b, 3, n)
	before := server.CPU()
	for b.Loop() {
		got := 0
		err := p.Scan(b.Context(), func(batch []registry.Entry) error { got += len(batch); return nil })
		if err != nil || got != 3*n {
			b.Fatal(got, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*3*n), "ns/row")
	b.ReportMetric(float64((server.CPU()-before).Nanoseconds())/float64(b.N*3*n), "database-ns/row")
}

// BenchmarkPostgresExchange measures what the badge of a shared device costs the
// database: its count is stored, and APNs' acceptance after that. A batch is what waits
// while the exchange before is under way.
func BenchmarkPostgresExchange(b *testing.B) {
	const n, shared = 100_000, 2048
	server, p, orgs := filledPostgres(b, 2, n)
	devices, badges := many(shared), 0
	push := func(batch int) { // to the next devices, counts that are new to them
		x := relay.ExchangeRequest{Relay: "one", Lifetime: time.Hour, ShownFor: time.Hour}
		for range batch {
			badges++
			r := devices[badges%shared]
			x.Devices = append(x.Devices, relay.SharedUpdate{DeviceKey: relay.DeviceKey{App: r.App, Device: r.Device}, Counts: []relay.ReceivedCount{
				{Key: relay.MailboxKey{Organization: orgs[badges/shared%2], Mailbox: r.Mailbox}, Count: uint32(badges), ReceivedAt: time.Now()}}})
		}
		for _, accepted := range []bool{false, true} {
			result, err := p.Exchange(b.Context(), x)
			if err != nil || !result.Devices[0].Shared || result.Devices[0].Outstanding() == accepted {
				b.Fatalf("accepted %v: %+v, %v", accepted, result.Devices[:1], err)
			}
			for i := range x.Devices {
				x.Devices[i].Counts, x.Devices[i].Accepted = nil, result.Devices[i].Sequence
			}
		}
	}
	for range shared / 256 {
		push(256)
	}
	for _, batch := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			first, before := badges, server.CPU()
			for b.Loop() {
				push(batch)
			}
			b.ReportMetric(float64((server.CPU()-before).Nanoseconds())/float64(badges-first), "database-ns/badge")
		})
	}
}
