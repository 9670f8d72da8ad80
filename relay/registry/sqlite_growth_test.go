package registry_test

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"badgerelay/relay/registry"
)

// BenchmarkGrowth says what a registered row costs while the registry grows: each
// round is a million new devices. The CPU time is this process's, which is all
// there is with SQLite, and says more than the wall on a machine that is shared.
// -benchtime 10x makes ten millions.
func BenchmarkGrowth(b *testing.B) {
	const million = 1_000_000
	for _, order := range []string{"sorted", "shuffled"} {
		b.Run("mailboxes="+order, func(b *testing.B) {
			s, org := filled(b, 0)
			var first, last float64
			rs := make([]registry.Registration, registry.ImportBatch)
			random := rand.New(rand.NewPCG(1, 1))
			for round := 0; b.Loop(); round++ {
				cpu, wall, n := cpuTime(), time.Now(), 0
				for n < million {
					rs = rs[:min(cap(rs), million-n)]
					for i := range rs {
						rs[i] = numbered(round, n+i)
						if order == "shuffled" {
							rs[i].Mailbox = rs[i].Device.String()[:1] + string(rune('a'+random.IntN(26))) + string(rune('a'+random.IntN(26))) + string(rune('a'+random.IntN(26))) + rs[i].Mailbox
						}
					}
					n += len(rs)
					if _, err := s.ImportSubscriptions(b.Context(), org, rs); err != nil {
						b.Fatal(err)
					}
				}
				last = float64((cpuTime() - cpu).Nanoseconds()) / million
				if round == 0 {
					first = last
				}
				b.Logf("million %d: %.0f ns of CPU a row, %v", round+1, last, time.Since(wall).Round(time.Millisecond))
			}
			b.ReportMetric(last, "cpu-ns/row")
			b.ReportMetric(last/first, "times-the-first")
		})
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it can't fail for oneself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
