package main

import (
	"context"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/rig"
	pb "badgerelay/proto/badgerelay/v1"
)

func (b *bench) ingestCommand() *cobra.Command {
	t := &throughput{}
	c := &cobra.Command{
		Use: "ingest", Short: "what taking an event costs alone: a floor",
		Long: `Has agents send events of mailboxes to which nobody is subscribed: they end at
once, and nothing is pushed. What is left is ingest: TLS, gRPC, decoding, the
mailbox's state, and the settlement, which names each of these events.`,
		Example: `  badgebench ingest --batch 256 --repeat 5`,
		RunE:    func(c *cobra.Command, _ []string) error { return b.single(c, &t.setup, t.ingest) },
	}
	f := c.Flags()
	f.SortFlags = false
	command.Count(f, &t.mailboxes, "mailboxes", 1, maxMailboxes, 10_000, "`number` of mailboxes")
	command.Count(f, &t.agents, "agents", 1, 100, 2, "`number` of agents, each with a connection and a stream of its own")
	command.Count(f, &t.batch, "batch", 1, 10_000, 256, "most events in a message")
	t.registerRun(f)
	return c
}

func (t *throughput) ingest(ctx context.Context, r *report.Report, run *report.Run, world *rig.Rig) error {
	ps, sp, err := t.under(ctx, r, world, load.Pace{}, pb.Outcome_OUTCOME_NO_SUBSCRIPTION)
	if err != nil {
		return err
	}
	run.Add("events_per_second", "/s", sp.events()/sp.seconds())
	run.Add("relay_cpu_per_event", "us", micros(sp.to.relay.CPU-sp.from.relay.CPU)/sp.events())
	sp.memory(run)
	sp.others(run)
	return ps.end(ctx)
}
