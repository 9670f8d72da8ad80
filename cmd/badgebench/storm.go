package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/rig"
)

func (b *bench) stormCommand() *cobra.Command {
	t := &throughput{setup: setup{agents: 1, coalescing: time.Second}}
	c := &cobra.Command{
		Use: "storm", Short: "one mailbox that changes ten thousand times a second",
		Long: `Has one mailbox send events at a rate. Its devices must be pushed to at most once
in a coalescing window, whatever the rate, and the relay's memory must not grow.
More pushes than that are a problem: then there are no figures.`,
		Example: `  badgebench storm
  badgebench storm --rate 100000 --coalescing-window 250ms`,
		RunE: func(c *cobra.Command, _ []string) error { return b.single(c, &t.setup, t.storm) },
	}
	f := c.Flags()
	t.registerWorld(f, 1)
	t.registerLoad(c)
	t.registerRun(f)
	command.Number(f, &t.rate, "rate", 0, maxRate, 10_000, "events a second of all agents")
	return c
}

func (t *throughput) storm(ctx context.Context, r *report.Report, run *report.Run, world *rig.Rig) error {
	ps, sp, err := t.under(ctx, r, world, load.Pace{Rate: t.rate, Every: gatherFor}, t.expected()...)
	if err != nil {
		return err
	}
	if t.coalescing > 0 {
		// One more than there are windows: both ends may fall upon a push.
		within := sp.to.apple.Usage.At.Sub(sp.from.apple.Usage.At)
		most := (within.Seconds()/t.coalescing.Seconds() + 1) * float64(world.Devices())
		if sp.badges() > most {
			r.Fail("%.0f pushes within %v are more than one in a window of %v", sp.badges(), within, t.coalescing)
		}
	}
	run.Add("events_per_second", "/s", sp.events()/sp.seconds())
	run.Add("pushes_per_second", "/s", sp.badges()/sp.seconds())
	run.Add("relay_cpu_per_event", "us", micros(sp.to.relay.CPU-sp.from.relay.CPU)/sp.events())
	run.Add("relay_resident_before", "MB", megabytes(sp.from.relay.Resident))
	sp.memory(run)
	sp.others(run)
	return ps.end(ctx)
}
