package main

import (
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgerelay/internal/demo"
)

func (p process) demoCommand() *cobra.Command {
	o := demo.Options{Program: os.Args[0], Version: buildVersion(), Out: p.out, Log: p.err}
	c := &cobra.Command{
		Use: "demo", Short: "see the whole way work in one process, with nothing to set up", Args: cobra.NoArgs,
		Long: `Runs a simulated Apple, a relay, an organization's agent and a wall of phones
in one process. Everything is made on the spot and removed at the end.

With --check nobody needs to look: counts change fast, Apple misbehaves at a low
rate, the relay is restarted once, and at the end every device must show the
count of its mailbox. The last line is the result as JSON; exit code 0 says
that all was right.`,
		Example: `  badgerelay demo                    # until Ctrl-C
  badgerelay demo --check 20s        # judge by itself`,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Check < 0 || c.Flags().Changed("check") && o.Check < time.Second {
				return misconfigured{errShortCheck}
			}
			return demo.Run(c.Context(), o)
		},
	}
	c.Flags().DurationVar(&o.Check, "check", 0, "change counts for this time (at least 1s), then judge and end")
	c.Flags().StringVar(&o.Page, "page", "", "address of the page with the phones (default: 127.0.0.1 and a free port)")
	c.Flags().StringVar(&o.Ops, "ops", "", "address of the metrics (default: 127.0.0.1 and a free port)")
	c.Flags().StringVar(&o.LogLevel, "log-level", "error", "the relay's: debug, info, warn or error")
	return c
}

var errShortCheck = errors.New("--check wants a time of at least 1s")
