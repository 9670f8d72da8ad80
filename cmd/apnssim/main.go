package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"badgerelay/apns/apnstest"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/manpages"
)

func main() { os.Exit(command.Main(program)) }

// long is what --help says before the options.
func long() string {
	var b strings.Builder
	b.WriteString(`Simulate Apple's push service, with a wall of devices to look at.

Without a command it runs until SIGINT or SIGTERM. It takes what APNs takes, refuses what APNs refuses, and counts what a client did
that Apple would hold against it. The page and GET /api/stats show these client
faults:
`)
	meanings := apnstest.ClientFaultMeanings()
	for _, name := range slices.Sorted(maps.Keys(meanings)) {
		fmt.Fprintf(&b, "  %-16s %s\n", name, meanings[name])
	}
	b.WriteString("\nExit codes: 0 ended by a signal; 1 failed; 2 wrong usage.")
	return b.String()
}

func program(t *command.Terminal) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "apnssim",
		Short: "simulate Apple's push service, with a wall of devices to look at",
		Long:  long(),
		Example: `  apnssim --generate-key ./sim --devices 12
  apnssim --generate-key ./sim --device mailbox=ann@fabrikam.com,name="Ann's iPhone" --faults off`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return &command.UsageError{Err: err}
			}
			return serve(c.Context(), &o, t)
		},
	}
	o.register(c)
	t.OutputFlag(c)
	c.AddCommand(t.VersionCommand(), manpages.Command())
	return c
}
