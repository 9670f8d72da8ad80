package main

import (
	"os"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgerelay/internal/daemon"
	"badgerelay/cmd/badgerelay/internal/operator"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/manpages"
)

// process is what the operating system gives us.
type process struct {
	*command.Terminal
	reload <-chan os.Signal     // nil: never
	ready  func(daemon.Serving) // told when the daemon serves; nil: nobody is
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
