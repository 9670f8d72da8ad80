// Command badgerelay relays unread counts from mail servers to the app icons
// of iPhones and iPads: the daemon (serve), the operator's commands, and a
// demonstration that needs nothing else (demo).
//
// The daemon's configuration is described in internal/config, the wiring of
// its parts is internal/daemon's run, the operator's commands are in
// internal/operator, the demonstration in internal/demo.
//
// The command does not keep itself running: systemd or Kubernetes restart it,
// and no badge is lost by that.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/badgerelay/internal/daemon"
	"badgerelay/cmd/badgerelay/internal/operator"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/manpages"
	life "badgerelay/cmd/internal/process"
)

func main() {
	os.Exit(command.Main(func(t *command.Terminal) *cobra.Command { return process{Terminal: t}.command() }))
}

// process is what the operating system gives us.
type process struct {
	*command.Terminal
	reload <-chan os.Signal     // instead of SIGHUP; nil: that
	ready  func(daemon.Serving) // told when the daemon serves; nil: nobody is
}

// hangup is SIGHUP, for the commands that end otherwise with it than at once.
func (p process) hangup() <-chan os.Signal {
	if p.reload != nil {
		return p.reload
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	return hangup
}

const rootHelp = `badgerelay puts the unread count of a mailbox on the app icon of every iPhone
and iPad that subscribed to it. Mail servers stream counts in, each organization
with tokens that it signs itself; Apple gets the newest count of each mailbox.

Start with a demonstration that needs nothing:   badgerelay demo
Then write a configuration:                      badgerelay config example
Run it:                                          badgerelay serve --config badgerelay.yaml
Enrol an organization:                           badgerelay organization add fabrikam.com
Register its certificate:                        badgerelay credential add --organization fabrikam.com --certificate OAuthCert.cer
See whether Apple accepts you:                   badgerelay probe

` + command.ExitCodes + `

` + command.Removals + `

Flags that show a name such as [$BADGERELAY_CONFIG] may be given in that
environment variable instead.`

func (p process) command() *cobra.Command {
	root := &cobra.Command{
		Use: "badgerelay", Short: "relay unread counts to app icons", Long: rootHelp,
	}
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run a relay:"}, &cobra.Group{ID: "operate", Title: "Operate a running relay:"})
	for _, c := range []*cobra.Command{p.serveCommand(), p.demoCommand(), p.configCommand(), p.registryCommand()} {
		c.GroupID = "run"
		root.AddCommand(c)
	}
	terminal := &operator.Terminal{Terminal: p.Terminal}
	for _, c := range terminal.Commands() {
		c.GroupID = "operate"
		root.AddCommand(c)
	}
	root.AddCommand(p.VersionCommand(), manpages.Command())
	return root
}

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

func configFlag(c *cobra.Command, file *string) {
	command.ConfigFlag(c, file, "the configuration", config.DefaultPath)
}

// serve runs the daemon until ctx is done; ready, if not nil, is told where it
// can be reached.
func (p process) serve(ctx context.Context, file string, ready func(daemon.Serving)) error {
	life.Outlive(p.Out, p.Err)
	reload := p.hangup() // from here on, since one that comes while the files are read must not end the relay
	c, warnings, err := config.Load(file)
	if err != nil {
		return err
	}
	return misconfigured(daemon.Run(ctx, daemon.Options{
		Config: c, File: configfile.Named(file, config.DefaultPath), Warnings: warnings, Version: p.Version, Log: p.Err, Reload: reload, Ready: ready,
		Reread: func() (*config.Config, []*config.Problem, error) { return config.Load(file) },
	}))
}
