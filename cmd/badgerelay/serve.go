package main

import (
	"context"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/badgerelay/internal/daemon"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/configfile"
	life "badgerelay/cmd/internal/process"
)

func (p process) serveCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "serve", Short: "run the relay",
		Long: `Runs the relay until SIGTERM or SIGINT: then it takes no more events, tells
agents to go elsewhere, settles what can be settled within drain_budget, and
ends. A second signal ends it at once; both lose no badge, because agents send
again what was not settled. SIGHUP reads certificates, keys, limits and the log
level again, and adds new apps; a file that is wrong leaves the old state in force
and says so in the log.

Exit codes: 0 drained; 1 failed, also because a certificate is not valid by the
system's clock; 2 misconfigured.`,
		Example: `  badgerelay serve --config /etc/badgerelay/badgerelay.yaml
  badgerelay serve                                  # ` + config.DefaultPath + `, or the defaults`,
		RunE: func(c *cobra.Command, _ []string) error { return p.serve(c.Context(), file, p.ready) },
	}
	configFlag(c, &file)
	return c
}

// configFlag adds --config.
func configFlag(c *cobra.Command, file *string) {
	command.ConfigFlag(c, file, "the configuration", config.DefaultPath)
}

// serve runs the daemon until ctx is done; ready, if not nil, is told where it
// can be reached.
func (p process) serve(ctx context.Context, file string, ready func(daemon.Serving)) error {
	life.Outlive(p.Out, p.Err)
	c, warnings, err := config.Load(file)
	if err != nil {
		return err
	}
	return misconfigured(daemon.Run(ctx, daemon.Options{
		Config: c, File: configfile.Named(file, config.DefaultPath), Warnings: warnings, Version: p.Version, Log: p.Err, Reload: p.reload, Ready: ready,
		Reread: func() (*config.Config, error) {
			next, _, err := config.Load(file)
			return next, err
		},
	}))
}
