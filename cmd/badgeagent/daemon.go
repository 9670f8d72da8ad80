package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"badgerelay/auth"
	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/badgeagent/internal/serve"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/process"
	"badgerelay/relay/agent/keyring"
)

func (a *app) runCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "run", Short: "watch the mailboxes and keep their badges right", Args: cobra.NoArgs,
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
  badgeagent run --config badgeagent.yaml`,
		RunE: a.do(func(ctx context.Context, _ []string) error { return a.runDaemon(ctx, file) }),
	}
	cmd.Flags().StringVar(&file, "config", "", "the configuration (default "+config.DefaultPath+", if it exists)")
	return cmd
}

func (a *app) runDaemon(ctx context.Context, file string) error {
	process.Outlive(a.out, a.err)
	d, err := a.newDaemon(file)
	if err != nil {
		return err
	}
	return d.Run(ctx)
}

// newDaemon builds the daemon from the configuration and the directory.
func (a *app) newDaemon(file string) (*serve.Server, error) {
	c, warnings, err := config.Load(file)
	if err != nil {
		return nil, &misuse{err}
	}
	a.relays, a.ca = c.Relay.Addresses, c.Relay.CAFile
	a.product, a.productVersion = c.Relay.Product, c.Relay.ProductVersion
	s, err := a.settings()
	if err != nil {
		return nil, &misuse{err}
	}
	relay := s.agentConfig(a)
	if relay.AgentID, err = a.agentID(c.AgentID); err != nil {
		return nil, err
	}
	store, err := auth.OpenStore(filepath.Join(a.dir, certificateDir))
	if err != nil {
		return nil, err
	}
	return serve.New(serve.Options{
		Config: c, Warnings: warnings, Relay: relay, Keys: s.keyring(store),
		Version: buildVersion(), Log: a.err, Ready: a.ready, Reload: a.reloads(),
		Enabled: func() (bool, error) {
			p, err := a.proxy()
			return err == nil && p.Enabled, err
		},
		Reread: func() (*config.Config, error) {
			next, _, err := config.Load(file)
			return next, err
		},
	})
}

// keyring says with which certificates the daemon signs.
func (s *settings) keyring(store *auth.Store) keyring.Config {
	return keyring.Config{
		Store: store, Organization: s.organization,
		Issuer: func(pair *auth.Pair) (*auth.Issuer, error) {
			return s.issuerOf(&certificate{pair.Certificate, pair.Key, s.organization})
		},
	}
}

func (a *app) configCommand() *cobra.Command {
	check := &cobra.Command{
		Use: "check [file]", Short: "print everything that is wrong with the daemon's configuration", Args: cobra.MaximumNArgs(1),
		Long: `Reads the file and the secrets that it names, and prints every problem with its
line. Nothing is started, and nothing is connected to: see badgeagent probe.`,
		RunE: a.do(func(_ context.Context, args []string) error {
			file := ""
			if len(args) == 1 {
				file = args[0]
			}
			return a.checkConfig(file)
		}),
	}
	example := &cobra.Command{
		Use: "example", Short: "print a configuration with every setting explained", Args: cobra.NoArgs,
		RunE: a.do(func(context.Context, []string) error {
			_, err := fmt.Fprint(a.out, config.Example)
			return err
		}),
	}
	return group("config", "check the daemon's configuration, or print an example of one", check, example)
}

func (a *app) checkConfig(file string) error {
	_, warnings, err := config.Load(file)
	for _, w := range warnings {
		fmt.Fprintf(a.out, "warning: %s\n", w)
	}
	if err == nil {
		fmt.Fprintln(a.out, "The configuration is valid.")
		return nil
	}
	problems := configfile.Problems(err)
	for _, p := range problems {
		fmt.Fprintln(a.out, p)
	}
	return misused("problems in the configuration: %d", len(problems))
}
