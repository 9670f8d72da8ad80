package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgebench/internal/apple"
	"badgerelay/cmd/badgebench/internal/fleet"
	"badgerelay/cmd/badgebench/internal/load"
	"badgerelay/cmd/badgebench/internal/pusher"
	"badgerelay/cmd/badgebench/internal/site"
	"badgerelay/cmd/internal/buildinfo"
	"badgerelay/cmd/internal/manpages"
)

// Exit codes, also told by "badgebench help".
const (
	exitDone = iota
	exitFailed
	exitUsage
)

// errProblems says that a report named its problems itself.
var errProblems = errors.New("no figures: the report names the problems")

// usageError is a call that can't work, however often it is repeated.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// run is the whole program. It returns the exit code when all that it started
// has ended.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	b := &bench{out: stdout, progress: stderr}
	defer b.close()
	root := command(b)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	fmt.Fprintln(stderr, "badgebench:", err)
	if _, wrong := errors.AsType[usageError](err); wrong || isUsage(err) {
		return exitUsage
	}
	return exitFailed
}

// isUsage recognizes cobra's own errors of the command line, which have no
// type.
func isUsage(err error) bool {
	for _, start := range []string{"unknown command", "required flag", "accepts "} {
		if strings.HasPrefix(err.Error(), start) {
			return true
		}
	}
	return false
}

const rootHelp = `badgebench measures badgerelay: what a badge costs, how long it takes, what it
needs, and whether every device shows the right number at the end.

Every command runs the relay, a simulated Apple and the load generators as
processes of their own on loopback addresses, and removes all of it at the end.
Figures are medians over --repeat runs, with the least and the greatest.

Exit codes: 0 measured; 1 failed, or a run did not count because a badge was
wrong or the simulated Apple found fault with its client; 2 wrong usage.`

func command(b *bench) *cobra.Command {
	root := &cobra.Command{
		Use: "badgebench", Short: "measure what badgerelay costs", Long: rootHelp,
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", err, c.CommandPath())}
	})
	b.register(root.PersistentFlags())
	for _, add := range []func() *cobra.Command{
		b.apnsCommand, b.relayCommand, b.fleetCommand, b.latencyCommand, b.memoryCommand, b.scaleCommand, b.stormCommand, b.ingestCommand, b.chaosCommand, roleCommand,
	} {
		root.AddCommand(add())
	}
	root.AddCommand(buildinfo.VersionCommand("badgebench", b.out, func(err error) error { return usageError{err} }), manpages.Command())
	return root
}

// roleCommand is what badgebench starts itself with.
func roleCommand() *cobra.Command {
	roles := map[string]func(in, out *os.File) error{
		apple.RoleName:  apple.Run,
		load.RoleName:   load.Run,
		fleet.RoleName:  fleet.Run,
		pusher.RoleName: pusher.Run,
		site.RoleName:   site.Run,
	}
	return &cobra.Command{
		Use: "role name", Short: "be one of the processes of a measurement", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			role := roles[args[0]]
			if role == nil {
				return usageError{fmt.Errorf("there is no role %q", args[0])}
			}
			return role(os.Stdin, os.Stdout)
		},
	}
}
