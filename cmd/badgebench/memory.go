package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/rig"
	pb "badgerelay/proto/badgerelay/v1"
)

func (b *bench) memoryCommand() *cobra.Command {
	s := &setup{}
	var heapProfile string
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
			empty.mailboxes, empty.devices, empty.agents = 1, 0, 1
			void, _, err := b.newRig(c.Context(), &empty)
			if err != nil {
				return err
			}
			full, parts, err := b.newRig(c.Context(), s)
			if err != nil {
				return errors.Join(err, void.Close())
			}
			err = b.measure(c, func(ctx context.Context, r *report.Report, _ int) error {
				run := &report.Run{}
				addImport(run, parts)
				base, err := empty.baseline(ctx, void)
				if err == nil {
					m := fullness{setup: s, full: full, base: base, heapProfile: heapProfile}
					err = m.memory(ctx, r, run)
				}
				r.Case("").Add(run)
				return err
			})
			return errors.Join(err, full.Close(), void.Close())
		},
	}
	f := c.Flags()
	s.registerWorld(f, 1_000_000)
	s.registerLoad(c)
	f.StringVar(&heapProfile, "heapprofile", "", "write what the relay's memory holds when idle to this `file`")
	return c
}

// addImport adds what the import took, and what a device cost at each million.
// With a database that is beside the relay, its CPU time counts too.
func addImport(run *report.Run, parts []rig.Imported) {
	var all rig.Imported
	cost := func(p rig.Imported) float64 { return micros(p.Relay+p.Database) / float64(p.Rows) }
	for _, p := range parts {
		all.Rows, all.Took, all.Relay, all.Database = all.Rows+p.Rows, all.Took+p.Took, all.Relay+p.Relay, all.Database+p.Database
	}
	run.Add("import", "s", all.Took.Seconds())
	if all.Rows == 0 {
		return
	}
	run.Add("import_cpu_per_device", "us", cost(all))
	if len(parts) < 2 {
		return
	}
	for i, p := range parts {
		run.Add(fmt.Sprintf("import_cpu_per_device_%d", i+1), "us", cost(p))
		run.Add(fmt.Sprintf("import_%d", i+1), "s", p.Took.Seconds())
	}
	run.Add("import_growth", "", cost(parts[len(parts)-1])/cost(parts[0]))
}

// fullness is one measurement of badgebench memory.
type fullness struct {
	*setup
	full        *rig.Rig
	base        snapshot // of a relay that has nothing to remember
	heapProfile string
}

// memory makes one run: a start without load, and then the first event of each mailbox.
func (m *fullness) memory(ctx context.Context, r *report.Report, run *report.Run) error {
	cold := m.full.DatabaseCPU()
	ps, err := m.play(ctx, m.full)
	if err != nil {
		return err
	}
	size, err := m.full.RegistrySize(ctx)
	if err != nil {
		return err
	}
	run.Add("registry_per_device", "bytes", float64(size)/m.count())
	run.Add("start_to_ready", "ms", micros(ps.relays[0].ToReady)/1000)
	if err := m.warm(ctx, run, ps, cold); err != nil {
		return err
	}
	sp, err := ps.once(ctx)
	if err != nil {
		return err
	}
	run.Add("first_cpu_per_event", "us", micros(sp.to.relay.CPU-sp.from.relay.CPU)/sp.events())
	if err := ps.judge(ctx, r, &sp, pb.Outcome_OUTCOME_DELIVERED); err != nil {
		return err
	}
	busy, err := ps.shrunk(ctx)
	if err != nil {
		return err
	}
	m.size(run, "busy", busy)
	if _, err := ps.until(ctx, "badgerelay_mailboxes_idle", m.mailboxes); err != nil {
		return err
	}
	idle, err := ps.shrunk(ctx)
	if err != nil {
		return err
	}
	m.size(run, "idle", idle)
	if m.heapProfile != "" {
		if err := ps.relays[0].HeapProfile(ctx, m.heapProfile); err != nil {
			return err
		}
	}
	return ps.end(ctx)
}

// warm waits until the relay has read its registry. cold is the database's CPU time
// before the relay's start.
func (m *fullness) warm(ctx context.Context, run *report.Run, ps *processes, cold time.Duration) error {
	began := time.Now()
	warm, err := ps.until(ctx, "badgerelay_mailboxes", m.mailboxes)
	if err != nil {
		return err
	}
	run.Add("ready_to_warm", "s", time.Since(began).Seconds())
	run.Add("warm_cpu_per_device", "us", micros(warm.relay.CPU)/m.count())
	if d := warm.database - cold; d > 0 {
		run.Add("warm_database_cpu_per_device", "us", micros(d)/m.count())
	}
	now, err := ps.shrunk(ctx)
	if err != nil {
		return err
	}
	run.Add("devices", "", now.metrics.Sum("badgerelay_devices"))
	m.size(run, "warm", now)
	return nil
}

func (m *fullness) count() float64 { return float64(m.full.Devices()) }

// size adds what a device takes, beyond what a relay takes that has none.
func (m *fullness) size(run *report.Run, when string, s snapshot) {
	run.Add("resident_"+when, "MB", megabytes(s.relay.Resident))
	run.Add("resident_per_device_"+when, "bytes", (float64(s.relay.Resident)-float64(m.base.relay.Resident))/m.count())
	run.Add("heap_per_device_"+when, "bytes", (heap(s)-heap(m.base))/m.count())
}

// until waits until a gauge of the relay is n.
func (ps *processes) until(ctx context.Context, gauge string, n int) (snapshot, error) {
	for {
		s, err := ps.snapshot(ctx, true)
		if err != nil || s.metrics.Sum(gauge) >= float64(n) {
			return s, err
		}
		if err := ps.wait(ctx, 100*time.Millisecond); err != nil {
			return s, err
		}
	}
}

func heap(s snapshot) float64 { return s.metrics.Sum("go_memstats_heap_alloc_bytes") }

// baseline is what a relay needs that has nothing to remember.
func (s *setup) baseline(ctx context.Context, void *rig.Rig) (snapshot, error) {
	ps, err := s.play(ctx, void)
	if err != nil {
		return snapshot{}, err
	}
	now, err := ps.shrunk(ctx)
	return now, errors.Join(err, ps.end(ctx))
}

// once has every mailbox send one event, and takes the sample from the first
// until all have settled.
func (ps *processes) once(ctx context.Context) (sp sample, err error) {
	if sp.from, err = ps.snapshot(ctx, false); err != nil {
		return sp, err
	}
	if err := ps.agents.Go(ctx, load.Pace{Once: true}); err != nil {
		return sp, err
	}
	for {
		if sp.to, err = ps.snapshot(ctx, true); err != nil {
			return sp, err
		}
		if sp.to.agents.Settled()-sp.from.agents.Settled() >= uint64(ps.setup.mailboxes) {
			return sp, nil
		}
		if err := ps.wait(ctx, 100*time.Millisecond); err != nil {
			return sp, err
		}
	}
}

// shrunk waits until the relay's memory does not shrink any more. The Go runtime
// gives memory back bit by bit.
func (ps *processes) shrunk(ctx context.Context) (snapshot, error) {
	if err := ps.collect(ctx); err != nil {
		return snapshot{}, err
	}
	least, since := uint64(1<<63), time.Now()
	for time.Since(since) < 3*time.Second {
		u, err := ps.usage()
		if err != nil {
			return snapshot{}, err
		}
		if u.Resident < least-least/200 {
			least, since = u.Resident, time.Now()
		}
		if err := ps.wait(ctx, 200*time.Millisecond); err != nil {
			return snapshot{}, err
		}
	}
	return ps.snapshot(ctx, true)
}
