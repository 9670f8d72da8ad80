package registry_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// BenchmarkRestore restores what ended all at once, as after a wrong configuration, while
// another organization registers a device after the other.
func BenchmarkRestore(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		for _, kind := range []string{"sqlite", "postgres"} {
			b.Run(fmt.Sprintf("%s/rows=%d", kind, n), func(b *testing.B) {
				if n > 100_000 && testing.Short() {
					b.Skip("takes long")
				}
				for b.Loop() {
					b.StopTimer()
					var r registry.Registry
					var org relay.OrganizationID
					database := func() time.Duration { return 0 }
					if kind == "sqlite" {
						r, org = filled(b, n)
					} else {
						server, p, orgs := filledPostgres(b, 1, n)
						r, org, database = p, orgs[0], server.CPU
					}
					endAll(b, r, org, n)
					other, err := r.AddOrganization(b.Context(), registry.NewOrganization{Name: "other.example.com"})
					if err != nil {
						b.Fatal(err)
					}
					done := make(chan struct{})
					var longest time.Duration
					var wg sync.WaitGroup
					before := database()
					b.StartTimer()
					wg.Go(func() { longest = registerUntil(b, r, other.ID, done) })
					restored := 0
					err = r.Restore(b.Context(), registry.RestoreRequest{}, func(part []registry.Restoration) error {
						restored += len(part)
						return nil
					})
					b.StopTimer()
					close(done)
					wg.Wait()
					if err != nil || restored != n {
						b.Fatal(restored, err)
					}
					b.ReportMetric(float64(longest.Milliseconds()), "ms-longest-wait")
					b.ReportMetric(float64((database()-before).Nanoseconds())/float64(n), "database-ns/row")
					b.StartTimer()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/row")
			})
		}
	}
}

// endAll ends the first n subscriptions of an organization.
func endAll(b *testing.B, r registry.Registry, org relay.OrganizationID, n int) {
	b.Helper()
	var part []relay.Removal
	for i := range n {
		s := numbered(0, i)
		part = append(part, relay.Removal{
			Key: relay.MailboxKey{Organization: org, Mailbox: s.Mailbox}, App: s.App, Device: s.Device,
			Reason: "Unregistered", Timestamp: time.Now().Add(time.Hour),
		})
		if len(part) == 10_000 || i == n-1 {
			if _, err := r.Remove(b.Context(), part); err != nil {
				b.Fatal(err)
			}
			part = part[:0]
		}
	}
}

// registerUntil registers devices one after the other until done is closed, and returns
// how long the longest took.
func registerUntil(b *testing.B, r registry.Registry, org relay.OrganizationID, done <-chan struct{}) (longest time.Duration) {
	for n := 0; ; n++ {
		select {
		case <-done:
			return longest
		case <-time.After(20 * time.Millisecond): // less than all that the database can do
		}
		began := time.Now()
		if _, err := r.Subscribe(b.Context(), org, numbered(1, n)); err != nil {
			b.Error(err)
		}
		longest = max(longest, time.Since(began))
	}
}
