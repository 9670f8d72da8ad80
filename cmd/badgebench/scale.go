package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/rig"
)

func (b *bench) scaleCommand() *cobra.Command {
	t := &throughput{}
	var sizes []int
	c := &cobra.Command{
		Use: "scale", Short: "what a badge costs from a thousand to a million mailboxes",
		Long: `Makes the measurement of badgebench relay with each number of mailboxes, in
turns, so that a machine that gets slower does so for all.

The window of unsettled events is the same for all sizes: half of the fewest
mailboxes of an agent, so that all are loaded alike. A message holds a quarter of
it at most, so that agents have events to send while others settle.`,
		Example: `  badgebench scale --repeat 5
  badgebench scale --sizes 1000,100000 --duration 5s`,
		RunE: func(c *cobra.Command, _ []string) error { return b.scale(c, t, sizes) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.IntSliceVar(&sizes, "sizes", []int{1_000, 10_000, 100_000, 1_000_000}, "`numbers` of mailboxes")
	command.Count(f, &t.DevicesPerMailbox, "devices-per-mailbox", 1, maxDevices, 1, "`number` of devices subscribed to each")
	t.registerLoad(c)
	t.registerTime(f, 10*time.Second, 2*time.Second)
	return c
}

func (b *bench) scale(c *cobra.Command, t *throughput, sizes []int) (err error) {
	if slices.Min(sizes) < 1 || slices.Max(sizes) > maxMailboxes {
		return command.Usage("--sizes: they are from 1 to %d", maxMailboxes)
	}
	t.Mailboxes = slices.Min(sizes)
	if err := t.validate(); err != nil {
		return err
	}
	t.limit = t.unsettled()
	t.batch = min(t.batch, max(1, t.limit/4))
	var worlds []*rig.Rig
	defer func() {
		for _, world := range worlds {
			err = errors.Join(err, world.Close())
		}
	}()
	for _, n := range sizes {
		t.Mailboxes = n
		world, _, err := b.newRig(c.Context(), &t.setup)
		if err != nil {
			return err
		}
		worlds = append(worlds, world)
	}
	return b.measure(c, func(ctx context.Context, rep *report.Report) error {
		for _, world := range worlds {
			t.Mailboxes = world.Mailboxes
			if _, err := t.measure(ctx, rep, fmt.Sprintf("%d mailboxes", world.Mailboxes), world, 1); err != nil {
				return err
			}
		}
		return nil
	})
}
