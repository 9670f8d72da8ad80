package registry_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// filled opens a database with n subscriptions, one a mailbox.
func filled(b *testing.B, n int) (*registry.SQLite, relay.OrganizationID) {
	b.Helper()
	s := openFile(b, filepath.Join(b.TempDir(), "registry.db"))
	o, err := s.AddOrganization(b.Context(), registry.NewOrganization{Name: "fabrikam.com"})
	if err != nil {
		b.Fatal(err)
	}
	if n > 0 {
		if _, err := s.ImportSubscriptions(b.Context(), o.ID, many(n)); err != nil {
			b.Fatal(err)
		}
	}
	return s, o.ID
}

func many(n int) []registry.Registration {
	rs := make([]registry.Registration, n)
	for i := range rs {
		rs[i] = numbered(0, i)
	}
	return rs
}

func BenchmarkLookup(b *testing.B) {
	const n = 100_000
	s, org := filled(b, n)
	for _, keys := range []int{1, 16, 256, 1024} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			wanted := make([]relay.MailboxKey, keys)
			next := 0
			for b.Loop() {
				for i := range wanted {
					next = (next + 7919) % n // all over the table
					wanted[i] = relay.MailboxKey{Organization: org, Mailbox: fmt.Sprint(0, "/", next)}
				}
				found, err := s.Lookup(b.Context(), wanted)
				if err != nil || len(found[0]) != 1 {
					b.Fatal(found, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*keys), "ns/mailbox")
		})
	}
}

func BenchmarkImport(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("rows=%d", n), func(b *testing.B) {
			if n > 100_000 && testing.Short() {
				b.Skip("takes long")
			}
			rs := many(n)
			for b.Loop() {
				b.StopTimer()
				s, org := filled(b, 0)
				b.StartTimer()
				if got, err := s.ImportSubscriptions(b.Context(), org, rs); err != nil || got.Created != uint64(n) {
					b.Fatal(got, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/row")
		})
	}
}

func BenchmarkSubscribe(b *testing.B) {
	s, org := filled(b, 0)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if _, err := s.Subscribe(b.Context(), org, numbered(0, n)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	const n = 100_000
	s, _ := filled(b, n)
	b.ReportAllocs()
	for b.Loop() {
		got := 0
		err := s.Scan(b.Context(), func(batch []registry.Entry) error { got += len(batch); return nil })
		if err != nil || got != n {
			b.Fatal(got, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/row")
}
