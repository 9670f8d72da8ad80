package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/badgebench/internal/rig"
)

func (b *bench) memoryCommand() *cobra.Command {
	s := &setup{}
	var heapProfile string
	c := &cobra.Command{
		Use: "memory", Short: "what a device costs in memory, and how fast a full relay starts", Args: cobra.NoArgs,
		Long: `Fills the registry, starts a relay on it, has every mailbox send one event, so
that all is in memory, and waits until the relay's memory is at rest. What a
device takes is the difference to a relay whose registry is empty.

resident is what the system sees; heap is what lives after a collection.`,
		Example: `  badgebench memory --mailboxes 1000000`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := errors.Join(b.validate(), s.validate()); err != nil {
				return err
			}
			empty := *s
			empty.mailboxes, empty.devices, empty.agents = 1, 0, 1
			void, _, err := b.newRig(c.Context(), &empty)
			if err != nil {
				return err
			}
			full, took, err := b.newRig(c.Context(), s)
			if err != nil {
				return errors.Join(err, void.Close())
			}
			err = b.measure(c, func(ctx context.Context, r *report.Report, _ int) error {
				run := &report.Run{}
				run.Add("import", "s", took.Seconds())
				err := s.memory(ctx, r, run, &empty, void, full, heapProfile)
				r.Case("").Add(run)
				return err
			})
			return errors.Join(err, full.Close(), void.Close())
		},
	}
	f := c.Flags()
	s.registerWorld(f, 1_000_000)
	s.registerLoad(f)
	f.StringVar(&heapProfile, "heapprofile", "", "write what the relay's memory holds at rest to this `file`")
	return c
}

// memory makes one run.
func (s *setup) memory(ctx context.Context, r *report.Report, run *report.Run, empty *setup, void, full *rig.Rig, heapProfile string) error {
	base, err := empty.baseline(ctx, void)
	if err != nil {
		return err
	}
	sc, err := s.play(ctx, full)
	if err != nil {
		return err
	}
	run.Add("start_to_ready", "ms", micros(sc.relay.ToReady)/1000)
	atStart, err := sc.snapshot(ctx, true)
	if err != nil {
		return err
	}
	run.Add("resident_at_start", "MB", megabytes(atStart.relay.Resident))
	sp, err := sc.once(ctx)
	if err != nil {
		return err
	}
	run.Add("cold_cpu_per_event", "us", micros(sp.to.relay.CPU-sp.from.relay.CPU)/sp.events())
	run.Add("cold_events_per_second", "/s", sp.events()/sp.seconds())
	if err := sc.judge(ctx, r, &sp, s.expected()...); err != nil {
		return err
	}
	rest, err := sc.rest(ctx)
	if err != nil {
		return err
	}
	if heapProfile != "" {
		if err := sc.relay.HeapProfile(ctx, heapProfile); err != nil {
			return err
		}
	}
	devices := float64(full.Devices())
	run.Add("devices", "", rest.metrics.Sum("badgerelay_devices"))
	run.Add("resident", "MB", megabytes(rest.relay.Resident))
	run.Add("resident_per_device", "bytes", (float64(rest.relay.Resident)-float64(base.relay.Resident))/devices)
	run.Add("heap_per_device", "bytes", (heap(rest)-heap(base))/devices)
	return sc.end(ctx)
}

func heap(s snapshot) float64 { return s.metrics.Sum("go_memstats_heap_alloc_bytes") }

// baseline is what a relay needs that has nothing to remember.
func (s *setup) baseline(ctx context.Context, void *rig.Rig) (snapshot, error) {
	sc, err := s.play(ctx, void)
	if err != nil {
		return snapshot{}, err
	}
	rest, err := sc.rest(ctx)
	return rest, errors.Join(err, sc.end(ctx))
}

// once has every mailbox send one event, and takes the spell from the first
// until all have settled.
func (sc *scene) once(ctx context.Context) (sp spell, err error) {
	if sp.from, err = sc.snapshot(ctx, false); err != nil {
		return sp, err
	}
	if err := sc.agents.Go(ctx, load.Pace{Once: true}); err != nil {
		return sp, err
	}
	for {
		if sp.to, err = sc.snapshot(ctx, true); err != nil {
			return sp, err
		}
		if sp.to.agents.Settled()-sp.from.agents.Settled() >= uint64(sc.setup.mailboxes) {
			return sp, nil
		}
		if err := sc.wait(ctx, 100*time.Millisecond); err != nil {
			return sp, err
		}
	}
}

// rest waits until the relay's memory does not shrink any more. The Go runtime
// gives memory back bit by bit.
func (sc *scene) rest(ctx context.Context) (snapshot, error) {
	for range 2 { // the second collects what the first one's finalizers freed
		if err := sc.relay.Collect(ctx); err != nil {
			return snapshot{}, err
		}
	}
	least, since := uint64(1<<63), time.Now()
	for time.Since(since) < 3*time.Second {
		u, err := sc.relay.Usage()
		if err != nil {
			return snapshot{}, err
		}
		if u.Resident < least-least/200 {
			least, since = u.Resident, time.Now()
		}
		if err := sc.wait(ctx, 200*time.Millisecond); err != nil {
			return snapshot{}, err
		}
	}
	return sc.snapshot(ctx, true)
}
