package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"badgerelay/apns/apnstest"
	"badgerelay/cmd/internal/buildinfo"
	"badgerelay/cmd/internal/manpages"
	"badgerelay/cmd/internal/process"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // from here a second signal kills at once
	stdout, stderr := process.Standard()
	code := run(ctx, os.Args[1:], stdout, stderr)
	stdout.Flush()
	stderr.Flush()
	os.Exit(code)
}

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a call that can't work, however often it is repeated.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// long is what --help says before the options.
func long() string {
	var b strings.Builder
	b.WriteString(`Simulate Apple's push service, with a wall of devices to look at.

It takes what APNs takes, refuses what APNs refuses, and counts what a client did
that Apple would hold against it. The page and GET /api/stats show these client
faults:
`)
	meanings := apnstest.ClientFaultMeanings()
	for _, name := range slices.Sorted(maps.Keys(meanings)) {
		fmt.Fprintf(&b, "  %-16s %s\n", name, meanings[name])
	}
	return b.String()
}

// run is the program. It returns the exit code when ctx is done and everything
// has ended.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	cmd := &cobra.Command{
		Use:   "apnssim",
		Short: "Simulate Apple's push service, with a wall of devices to look at",
		Long:  long(),
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.NoArgs(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		},
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return usageError{err}
			}
			return serve(cmd.Context(), &o, stdout, stderr)
		},
	}
	o.register(cmd.Flags())
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	cmd.AddCommand(buildinfo.VersionCommand("apnssim", stdout, func(err error) error { return usageError{err} }), manpages.Command())
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	fmt.Fprintln(stderr, "apnssim:", err)
	if _, usage := errors.AsType[usageError](err); usage {
		fmt.Fprintln(stderr, "apnssim --help lists the options")
		return exitUsage
	}
	return exitFailed
}
