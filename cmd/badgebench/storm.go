package main

import (
	"context"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/rig"
)

func (b *bench) stormCommand() *cobra.Command {
	t := &throughput{}
	c := &cobra.Command{
		Use: "storm", Short: "one mailbox that changes ten thousand times a second",
		Long: `Has one mailbox send events at a rate. Its devices must be pushed to at most once
in a coalescing window, whatever the rate, and the relay's memory must not grow.
More pushes than that are a problem: then there are no figures.`,
		Example: `  badgebench storm
  badgebench storm --rate 100000 --coalescing-window 250ms`,
		RunE: func(c *cobra.Command, _ []string) error {
			return b.withRig(c, &t.setup, func(ctx context.Context, r *report.Report, world *rig.Rig) error {
				run, err := t.storm(ctx, r, world)
				r.Case("").Add(run)
				return err
			})
		},
	}
	f := c.Flags()
	t.registerWorld(f, 1)
	t.registerLoad(f)
	t.registerRun(f)
	f.Float64Var(&t.rate, "rate", 10_000, "events a second of all agents")
	for flag, value := range map[string]string{"agents": "1", "coalescing-window": "1s"} {
		f.Lookup(flag).DefValue = value
		_ = f.Lookup(flag).Value.Set(value) // it is a value of that kind
	}
	return c
}

func (t *throughput) storm(ctx context.Context, r *report.Report, world *rig.Rig) (*report.Run, error) {
	run := &report.Run{}
	ps, err := t.play(ctx, world)
	if err != nil {
		return run, err
	}
	if err := ps.agents.Go(ctx, load.Pace{Rate: t.rate, Every: gatherFor}); err != nil {
		return run, err
	}
	if err := ps.warm(ctx, t.warmup); err != nil {
		return run, err
	}
	sp, err := t.measured(ctx, r, ps, t.expected()...)
	if err != nil {
		return run, err
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
	return run, ps.end(ctx)
}
