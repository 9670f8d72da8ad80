package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/rig"
	pb "badgerelay/proto/badgerelay/v1"
)

func (b *bench) memoryCommand() *cobra.Command {
	s := &setup{}
	c := &cobra.Command{
		Use: "memory", Short: "what a device costs in memory, and how fast a full relay starts",
		Long: `Fills the registry and starts a relay on it. What a device takes is the
difference to a relay whose registry is empty: resident is what the system
sees, heap what lives after a collection. The import is measured by the million,
and import_growth is what a device of the last one costs by one of the first.

The relay reads its registry without load (warm), and then has the first event of
each mailbox: busy is its memory then, idle when all mailboxes have become idle,
which takes up to two minutes. 'badgebench relay --cold' measures first events
while a relay starts.`,
		Example: `  badgebench memory --mailboxes 1000000`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := s.validate(); err != nil {
				return err
			}
			empty := *s
			empty.Mailboxes, empty.DevicesPerMailbox, empty.agents = 1, 0, 1
			void, _, err := b.newRig(c.Context(), &empty)
			if err != nil {
				return err
			}
			full, parts, err := b.newRig(c.Context(), s)
			if err != nil {
				return errors.Join(err, void.Close())
			}
			err = b.measure(c, func(ctx context.Context, rep *report.Report) error {
				addImport(rep.Case(""), parts)
				base, err := empty.baseline(ctx, void)
				if err != nil {
					return err
				}
				m := fullness{setup: s, full: full, base: base, figures: rep.Case("")}
				return m.measure(ctx, rep)
			})
			return errors.Join(err, full.Close(), void.Close())
		},
	}
	f := c.Flags()
	s.registerWorld(c, 1_000_000, 1)
	s.registerLoad(c)
	f.StringVar(&s.heapProfile, "heapprofile", "", "write what the relay's memory holds when idle to this `file`")
	return c
}

// addImport adds what the import took, and what a device cost at each million.
// With a database that is beside the relay, its CPU time counts too.
func addImport(figures *report.Case, parts []rig.Imported) {
	var all rig.Imported
	cost := func(p rig.Imported) float64 { return micros(p.Relay+p.Database) / float64(p.Rows) }
	for _, p := range parts {
		all.Rows, all.Took, all.Relay, all.Database = all.Rows+p.Rows, all.Took+p.Took, all.Relay+p.Relay, all.Database+p.Database
	}
	figures.Add("import", "s", all.Took.Seconds())
	if all.Rows == 0 {
		return
	}
	figures.Add("import_cpu_per_device", "us", cost(all))
	if len(parts) < 2 {
		return
	}
	for i, p := range parts {
		figures.Add(fmt.Sprintf("import_cpu_per_device_%d", i+1), "us", cost(p))
		figures.Add(fmt.Sprintf("import_%d", i+1), "s", p.Took.Seconds())
	}
	figures.Add("import_growth", "", cost(parts[len(parts)-1])/cost(parts[0]))
}

// fullness is one measurement of badgebench memory.
type fullness struct {
	setup   *setup
	full    *rig.Rig
	base    snapshot // of a relay that has nothing to remember
	figures *report.Case
}

// measure makes one run: a start without load, and then the first event of each mailbox.
func (m *fullness) measure(ctx context.Context, rep *report.Report) error {
	cold := m.full.DatabaseCPU()
	r, err := m.setup.startLoad(ctx, m.full, 1)
	if err != nil {
		return err
	}
	size, err := m.full.RegistrySize(ctx)
	if err != nil {
		return err
	}
	m.figures.Add("registry_per_device", "bytes", float64(size)/m.devices())
	m.figures.Add("start_to_ready", "ms", micros(r.relays[0].ToReady)/1000)
	if err := m.warm(ctx, r, cold); err != nil {
		return err
	}
	sp, err := r.sampleFirst(ctx)
	if err != nil {
		return err
	}
	m.figures.Add("first_cpu_per_event", "us", micros(sp.relayCPU())/sp.events())
	if err := r.judgeLoad(ctx, rep, &sp, pb.Outcome_OUTCOME_DELIVERED); err != nil {
		return err
	}
	if err := m.add(ctx, r, "busy"); err != nil {
		return err
	}
	if _, err := r.until(ctx, "badgerelay_mailboxes_idle", m.full.Mailboxes); err != nil {
		return err
	}
	if err := m.add(ctx, r, "idle"); err != nil {
		return err
	}
	if m.setup.heapProfile != "" {
		if err := r.relays[0].HeapProfile(ctx, m.setup.heapProfile); err != nil {
			return err
		}
	}
	return r.stop(ctx)
}

// warm waits until the relay has read its registry. cold is the database's CPU time
// before the relay's start.
func (m *fullness) warm(ctx context.Context, r *processes, cold time.Duration) error {
	began := time.Now()
	warm, err := r.until(ctx, "badgerelay_mailboxes", m.full.Mailboxes)
	if err != nil {
		return err
	}
	m.figures.Add("ready_to_warm", "s", time.Since(began).Seconds())
	m.figures.Add("warm_cpu_per_device", "us", micros(warm.relay.CPU)/m.devices())
	if d := warm.database - cold; d > 0 {
		m.figures.Add("warm_database_cpu_per_device", "us", micros(d)/m.devices())
	}
	m.figures.Add("devices", "", warm.metrics.Sum("badgerelay_devices"))
	return m.add(ctx, r, "warm")
}

func (m *fullness) devices() float64 { return float64(m.full.Devices()) }

// add adds what a device takes now, beyond what a relay takes that has none.
func (m *fullness) add(ctx context.Context, r *processes, when string) error {
	s, err := r.collected(ctx)
	if err != nil {
		return err
	}
	m.figures.Add("resident_"+when, "MB", megabytes(s.relay.Resident))
	m.figures.Add("resident_per_device_"+when, "bytes", (float64(s.relay.Resident)-float64(m.base.relay.Resident))/m.devices())
	m.figures.Add("heap_per_device_"+when, "bytes", (heap(s)-heap(m.base))/m.devices())
	return nil
}

func heap(s snapshot) float64 { return s.metrics.Sum("go_memstats_heap_alloc_bytes") }

// baseline is what a relay needs that has nothing to remember.
func (s *setup) baseline(ctx context.Context, void *rig.Rig) (snapshot, error) {
	r, err := s.startLoad(ctx, void, 1)
	if err != nil {
		return snapshot{}, err
	}
	now, err := r.collected(ctx)
	return now, errors.Join(err, r.stop(ctx))
}
