package main

import (
	"context"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/badgeagent/internal/serve"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/process"
	"badgerelay/relay/agent/keyring"
)

func (a *app) serveCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "serve", Short: "watch the mailboxes and keep their badges right",
		Long: `Runs the daemon beside the mail server: it learns from the relay which mailboxes
have a device, watches them, and sends their unread counts. How the relay is
reached, and as whom, it takes from --dir, which cert ensure, auth-server set
and proxy enable have filled; a certificate published there later is taken up
without a restart.

SIGTERM, SIGINT or 'badgeagent proxy disable': it settles what it can within
drain_budget, and ends. SIGHUP reads passwords, tokens and the log level again.

Exit codes: 0 drained; 1 failed; 2 misconfigured.`,
		Example: `  badgeagent config example > badgeagent.yaml
  badgeagent config check badgeagent.yaml
  badgeagent serve --config badgeagent.yaml`,
		RunE: a.do(func(ctx context.Context, _ []string) error { return a.runDaemon(ctx, file) }),
	}
	configFlag(cmd, &file)
	return cmd
}

func configFlag(cmd *cobra.Command, file *string) {
	command.ConfigFlag(cmd, file, "the daemon's configuration", config.DefaultPath)
}

func (a *app) runDaemon(ctx context.Context, file string) error {
	process.Outlive(a.Out, a.Err)
	var d *serve.Server
	var err error
	select {
	case <-process.Background(func() { d, err = a.newDaemon(file) }):
	case <-ctx.Done(): // it may read from a file system that is away
		return nil
	}
	if err != nil {
		return err
	}
	return d.Run(ctx)
}

// newDaemon builds the daemon from the configuration and the directory.
func (a *app) newDaemon(file string) (*serve.Server, error) {
	c, warnings, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	s, err := a.settings(c.Relay)
	if err != nil {
		return nil, command.Invalid(err)
	}
	relay := s.agentConfig()
	if relay.AgentID, err = a.agentID(c.AgentID); err != nil {
		return nil, err
	}
	store, err := a.kept().Certificates()
	if err != nil {
		return nil, err
	}
	return serve.New(serve.Options{
		Config: c, Warnings: warnings, Relay: relay,
		Keys:    keyring.Config{Store: store, Organization: s.organization, Issuer: s.issuer},
		Version: a.Version, Log: a.Err, Ready: a.ready, Reload: a.reloads(),
		Enabled: func() (bool, error) {
			p, err := a.proxy()
			return err == nil && p.Enabled, err
		},
		Reread: func() (*config.Config, []*config.Problem, error) { return config.Load(file) },
	})
}

func (a *app) configCommand() *cobra.Command {
	var check *cobra.Command
	check = &cobra.Command{
		Use: "check [file]", Short: "print everything that is wrong with the daemon's configuration",
		Long: `Reads the file and the secrets that it names, and prints every problem with its
line. Nothing is started, and nothing is connected to: see badgeagent probe.`,
		RunE: a.do(func(_ context.Context, args []string) error {
			found, err := a.ConfigFile(check, args, a.config, config.DefaultPath)
			if err != nil {
				return err
			}
			_, warnings, err := config.Load(found)
			return a.ConfigCheck(found, warnings, err)
		}),
	}
	configFlag(check, &a.config)
	a.OutputFlag(check)
	c := &cobra.Command{Use: "config", Short: "check the daemon's configuration, or print an example of one"}
	c.AddCommand(check, a.ConfigExample(config.Example))
	return c
}
