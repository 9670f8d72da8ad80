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

func (b *bench) latencyCommand() *cobra.Command {
	t := &throughput{}
	c := &cobra.Command{
		Use: "latency", Short: "how long a count takes at a given rate",
		Long: `Has agents send events at a rate, whether the ones before have settled or not,
and counts each event's latency from the moment it was to be sent. Without
--rate it first finds the greatest rate and then takes half of it.

relay_push is the relay's own part, from an event's receipt until its push was
written to the socket; relay_settle until APNs' answer was taken. Both come from
the relay's histograms. settle is what the agents saw.`,
		Example: `  badgebench latency --rate 50000 --duration 20s
  badgebench latency --repeat 5`,
		RunE: func(c *cobra.Command, _ []string) error { return b.single(c, &t.setup, t.latency) },
	}
	f := c.Flags()
	t.registerWorld(f, 10_000)
	t.registerLoad(c)
	t.registerRun(f)
	command.Number(f, &t.rate, "rate", 0, maxRate, 0, "events a second of all agents (default: half of the greatest)")
	return c
}

func (t *throughput) latency(ctx context.Context, r *report.Report, run *report.Run, world *rig.Rig) error {
	ps, err := t.play(ctx, world)
	if err != nil {
		return err
	}
	rate, err := t.offered(ctx, ps)
	if err != nil {
		return err
	}
	if err := ps.agents.Go(ctx, load.Pace{Rate: rate, Every: gatherFor}); err != nil {
		return err
	}
	if err := ps.wait(ctx, time.Second); err != nil {
		return err
	}
	sp, err := t.measured(ctx, r, ps, t.expected()...)
	if err != nil {
		return err
	}
	run.Add("offered", "/s", rate)
	sp.relayLatencies(run)
	addSettle(run, sp.to.agents.Latency)
	sp.cost(run)
	sp.others(run)
	return ps.end(ctx)
}

// offered warms the relay up and returns the rate to offer.
func (t *throughput) offered(ctx context.Context, ps *processes) (float64, error) {
	if err := ps.agents.Go(ctx, load.Pace{}); err != nil {
		return 0, err
	}
	if err := ps.warm(ctx, t.warmup); err != nil {
		return 0, err
	}
	rate := t.rate
	if rate == 0 {
		sp, err := ps.measure(ctx, 3*time.Second)
		if err != nil {
			return 0, err
		}
		rate = sp.events() / sp.seconds() / 2
	}
	return rate, ps.agents.Stop(ctx, settleTimeout)
}
