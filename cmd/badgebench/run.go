package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgebench/internal/fleet"
	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/badgebench/internal/pusher"
	"badgerelay/cmd/internal/buildinfo"
	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/manpages"
)

// errProblems says that a report named its problems itself.
var errProblems = errors.New("no figures: the report names the problems")

// run is the whole program. It returns the exit code when all that it started
// has ended.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	b := &bench{out: stdout, progress: stderr}
	defer b.close()
	t := &command.Terminal{In: strings.NewReader(""), Out: stdout, Err: stderr, Version: buildinfo.Read().Version}
	b.Terminal = t
	return command.Run(ctx, program(b), t, args)
}

const rootHelp = `badgebench measures badgerelay: what a badge costs, how long it takes, and what
it needs.

Every command runs the relay, a simulated Apple and the load generators as
processes of their own on loopback addresses, and removes all of it at the end.
Figures are medians over --repeat runs, with the least and the greatest.

Exit codes: 0 measured; 1 failed, or a run did not count because a badge was
wrong or the simulated Apple found fault with its client; 2 wrong usage.`

func program(b *bench) *cobra.Command {
	root := &cobra.Command{
		Use: "badgebench", Short: "measure what badgerelay costs", Long: rootHelp,
	}
	b.register(root)
	for _, add := range []func() *cobra.Command{
		b.apnsCommand, b.relayCommand, b.fleetCommand, b.memoryCommand, b.scaleCommand,
	} {
		root.AddCommand(interruptible(add()))
	}
	root.AddCommand(b.VersionCommand(), manpages.Command())
	return root
}

// interruptible says of what a signal has ended that alone: whatever broke off
// then is no fault.
func interruptible(c *cobra.Command) *cobra.Command {
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		err := run(c, args)
		if err != nil && c.Context().Err() != nil {
			return errors.New("interrupted")
		}
		return err
	}
	return c
}

// roles are what badgebench starts itself as.
var roles = child.Roles{
	load.RoleName:   load.Run,
	fleet.RoleName:  fleet.Run,
	pusher.RoleName: pusher.Run,
}
