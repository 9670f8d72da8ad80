// Command badgebench measures what badgerelay costs.
//
// Each command starts what it measures as processes of their own, on loopback:
// the relay as it is installed, and apnssim, which simulates Apple. badgebench itself is
// the agents, or Apple's client. All of it ends, and everything written is removed,
// when the command does.
//
//	badgebench relay --mailboxes 100000 --duration 10s --repeat 5
//
// prints a table, machine, settings, and each figure as the median of the runs with
// the least and the greatest, and below it each run in the form that benchstat
// reads; or all of it as JSON with --output json. A run in
// which a device showed a wrong number, or in which the simulated Apple found
// fault with its client, counts for nothing: it is named, no figure is quoted,
// and the exit code is 1.
//
// README.md beside this file explains each command and what its figures mean.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/manpages"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // from here a second signal kills at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program. It returns the exit code when all that it started
// has ended.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	t := &command.Terminal{In: strings.NewReader(""), Out: stdout, Err: stderr}
	return command.Run(ctx, program(t), t, args)
}

const rootHelp = `badgebench measures badgerelay: what a badge costs, how long it takes, and what
it needs.

Every command runs the relay and a simulated Apple as processes of their own on
loopback addresses, sends the load itself, and removes all of it at the end.
Figures are medians over --repeat runs, with the least and the greatest.

Exit codes: 0 measured; 1 failed, or a run did not count because a badge was
wrong or the simulated Apple found fault with its client; 2 wrong usage.`

func program(t *command.Terminal) *cobra.Command {
	b := &bench{Terminal: t}
	root := &cobra.Command{
		Use: "badgebench", Short: "measure what badgerelay costs", Long: rootHelp,
	}
	b.register(root)
	for _, add := range []func() *cobra.Command{
		b.apnsCommand, b.relayCommand, b.fleetCommand, b.memoryCommand, b.scaleCommand,
	} {
		root.AddCommand(measuring(add()))
	}
	root.AddCommand(b.VersionCommand(), manpages.Command())
	return root
}

// measuring has a command refuse profiles that could not be written before it
// measures, and say of what a signal has ended that alone: whatever broke off then is no
// fault.
func measuring(c *cobra.Command) *cobra.Command {
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := writableProfiles(c); err != nil {
			return err
		}
		err := run(c, args)
		if err != nil && c.Context().Err() != nil {
			return errors.New("interrupted")
		}
		return err
	}
	return c
}
