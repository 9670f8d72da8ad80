package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/badgerelay/internal/daemon"
	"badgerelay/cmd/badgerelay/internal/operator"
)

// Exit codes, also told by "badgerelay help".
const (
	exitDone = iota
	exitFailed
	exitMisconfigured
	exitUnreachable
)

// process is what the operating system gives us.
type process struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	reload   <-chan os.Signal     // nil: never
	ready    func(daemon.Serving) // told when the daemon serves; nil: nobody is
}

// misconfigured is an error of the configuration or of the command line.
type misconfigured struct{ error }

func (m misconfigured) Unwrap() error { return m.error }

// run is the whole program. It returns the exit code.
func run(ctx context.Context, args []string, p process) int {
	root := p.command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	var text strings.Builder
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(&text, "badgerelay: %s", line)
	}
	fmt.Fprintln(p.err, strings.TrimRight(text.String(), "\n"))
	return exitCode(err)
}

func exitCode(err error) int {
	_, problem := errors.AsType[*config.Problem](err)
	_, wrong := errors.AsType[misconfigured](err)
	switch {
	case problem && config.OfClock(err):
		// A machine without a battery begins with a clock that is years wrong. A
		// service manager has to try again.
		return exitFailed
	case problem, wrong, errors.Is(err, operator.ErrUsage), isUsage(err):
		return exitMisconfigured
	case errors.Is(err, operator.ErrUnreachable):
		return exitUnreachable
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

const rootHelp = `badgerelay puts the unread count of a mailbox on the app icon of every iPhone
and iPad that subscribed to it. Mail servers stream counts in, each organization
with tokens that it signs itself; Apple gets the newest count of each mailbox.

Start with a demonstration that needs nothing:   badgerelay demo
Then write a configuration:                      badgerelay config example
Run it:                                          badgerelay serve --config badgerelay.yaml
Enrol an organization:                           badgerelay organization add fabrikam.com
Register its certificate:                        badgerelay credential add --organization fabrikam.com --certificate OAuthCert.cer
See whether Apple accepts you:                   badgerelay probe

Exit codes: 0 done; 1 failed or refused; 2 wrong usage or configuration;
3 no relay answered at the admin listener.`

func (p process) command() *cobra.Command {
	root := &cobra.Command{
		Use: "badgerelay", Short: "relay unread counts to app icons", Long: rootHelp,
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return misconfigured{fmt.Errorf("%w; see %s --help", err, c.CommandPath())}
	})
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run a relay:"}, &cobra.Group{ID: "operate", Title: "Operate a running relay:"})
	for _, c := range []*cobra.Command{p.serveCommand(), p.demoCommand(), p.configCommand(), p.registryCommand()} {
		c.GroupID = "run"
		root.AddCommand(c)
	}
	terminal := &operator.Terminal{In: p.in, Out: p.out, Err: p.err, Getenv: p.getenv}
	for _, c := range terminal.Commands() {
		c.GroupID = "operate"
		root.AddCommand(c)
	}
	root.AddCommand(p.versionCommand())
	return root
}
