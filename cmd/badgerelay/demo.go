package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgerelay/internal/demo"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/configfile"
)

func (p process) demoCommand() *cobra.Command {
	o := demo.Options{Program: os.Args[0], Log: p.Err}
	c := &cobra.Command{
		Use: "demo", Short: "see the whole way work in one process, with nothing to set up",
		Long: `Runs a simulated Apple, a relay, an organization's agent and a wall of phones
in one process. Everything is made on the spot and removed at the end.

With --check nobody needs to look: counts change fast, Apple misbehaves at a low
rate, the relay is restarted once, and at the end every device must show the
count of its mailbox. The last line is the result as JSON; exit code 0 says
that all was right.`,
		Example: `  badgerelay demo                    # until Ctrl-C
  badgerelay demo --check 20s        # judge by itself`,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, given := range []struct{ flag, address string }{{"--page", o.Page}, {"--ops", o.Ops}} {
				if bad := configfile.BadAddress(given.address); given.address != "" && bad != "" {
					return command.Usage("%s: %s", given.flag, bad)
				}
			}
			o.Version, o.Out = p.Version, p.Out
			return demo.Run(endWith(c.Context(), p.hangup()), o)
		},
	}
	command.Duration(c.Flags(), &o.Check, "check", time.Second, 0, "change counts for this time (at least 1s), then judge and end")
	c.Flags().StringVar(&o.Page, "page", "", "address of the page with the phones (default: 127.0.0.1 and a free port)")
	c.Flags().StringVar(&o.Ops, "ops", "", "address of the metrics (default: 127.0.0.1 and a free port)")
	command.Choice(c, c.Flags(), &o.LogLevel, "log-level", "", "what the relay logs: error, warn, info or debug", "error", "warn", "info", "debug")
	return c
}

// endWith returns a context that also ends with SIGHUP, which a terminal that is closed
// sends, since a demonstration has nothing to reload; and when nobody reads any more what
// it prints.
func endWith(ctx context.Context, sighup <-chan os.Signal) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	unread := make(chan os.Signal, 1)
	signal.Notify(unread, syscall.SIGPIPE) // which would end the process at once, with all it has made left behind
	go func() {                            // ends with ctx, which ends with the program at the latest
		select {
		case <-sighup:
		case <-unread:
		case <-ctx.Done():
		}
		cancel()
	}()
	return ctx
}
