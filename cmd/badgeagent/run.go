package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/badgeagent/internal/serve"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/manpages"
	"badgerelay/relay/agent/enrolment"
)

// app is one run of the program: its flags and streams.
type app struct {
	*command.Terminal
	host
	dir      string
	relay    config.Relay // what flags say of the relay and the product
	systemCA bool         // the kept authorities are dropped
	timeout  time.Duration
	config   string // the daemon's
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "badgeagent",
		Short: "the mailbox side of badgerelay",
		Long: `badgeagent connects an organization's mail servers to a badgerelay, which puts
the number of unread messages on the icons of subscribed iPhones and iPads.

Set up once, in this order:
  1. cert ensure      make the certificate whose key signs the organization's
                      tokens; give the exported OAuthCert.cer to the relay's operator
  2. auth-server set  learn from the relay's metadata document whom to talk to
  3. proxy enable     switch the push notification proxy on
  4. probe            test the whole way, stage by stage
Then run the daemon:
  5. serve            watch the mailboxes and keep their badges right

Everything is kept in one directory (--dir). Every command may be repeated.

` + command.ExitCodes + `

` + command.Removals + `

Flags that show a name such as [$BADGEAGENT_DIR] may be given in that environment
variable instead.`,
		Example: `  badgeagent cert ensure --organization fabrikam.com
  badgeagent auth-server set --metadata-url 'https://relay.example/metadata/json/1?realm=fabrikam.com'
  badgeagent proxy enable --organization fabrikam.com
  badgeagent probe
  badgeagent publish ann@fabrikam.com=7`,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.dir, "dir", defaultDir(), "the `directory` that holds everything badgeagent keeps")
	command.Environment(flags, "dir")
	command.Directories(root, "dir")
	root.AddGroup(&cobra.Group{ID: "setup", Title: "Set up:"}, &cobra.Group{ID: "run", Title: "Run and test:"}, &cobra.Group{ID: "count", Title: "Counts and devices:"})
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("setup", a.certCommand(), a.authServerCommand(), a.proxyCommand(), a.metadataCommand(), a.tokenCommand())
	add("run", a.serveCommand(), a.configCommand(), a.probeCommand(), a.explainCommand())
	add("run", a.serviceCommands()...)
	add("count", a.publishCommand(), a.subscriptionCommand(), a.deviceCommand())
	root.AddCommand(a.VersionCommand(), manpages.Command())
	return root
}

func (a *app) do(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if a.dir == "" {
			return command.Usage("--dir is empty")
		}
		if info, err := os.Stat(a.dir); err == nil && !info.IsDir() || errors.Is(err, syscall.ENOTDIR) {
			return command.Usage("--dir %s is not a directory", a.dir)
		}
		err := f(cmd.Context(), args)
		if errors.Is(err, enrolment.ErrDirectory) {
			return fmt.Errorf("%w; --dir or $BADGEAGENT_DIR names another one", err)
		}
		return err
	}
}

// result prints v as JSON if that was asked for.
func (a *app) result(v any) error { return a.Print(v, func() {}) }

// relayFlags adds the flags of commands that call a relay.
func (a *app) relayFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&a.relay.Addresses, "relay", nil, "a relay's `host:port`; may be repeated (default: what the metadata document says)")
	f.StringVar(&a.relay.Product, "product", "", "the mail server `product` to speak for, such as Exchange")
	f.StringVar(&a.relay.ProductVersion, "product-version", "", "its `version`, such as 15.0.775.38")
	command.Environment(f, "relay", "product", "product-version")
	a.caFlag(cmd)
	a.timeoutFlag(cmd)
}

func (a *app) timeoutFlag(cmd *cobra.Command) {
	command.Duration(cmd.Flags(), &a.timeout, "timeout", time.Millisecond, 30*time.Second, "how long to try")
	command.Environment(cmd.Flags(), "timeout")
}

func (a *app) caFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.relay.CAFile, "ca", "", "PEM `file` of the authorities to trust for TLS (default: what auth-server set was given, or the system's)")
	command.Environment(cmd.Flags(), "ca")
	command.Files(cmd, "ca")
}

// wouldWrite is Would for what makes files, or writes them anew: where they can't be
// made, it fails as the command would.
func (a *app) wouldWrite(files []string, format string, args ...any) error {
	for _, file := range files {
		if err := configfile.Makeable(file); err != nil {
			return fmt.Errorf("%s can't be written: %w", file, err)
		}
	}
	return a.Would(format, args...)
}

// keptFile is a file in --dir: where one can be made, others can.
func (a *app) keptFile() string { return a.exportFile("", exportName) }

func organizationFlag(cmd *cobra.Command, name *string, usage string) {
	cmd.Flags().StringVar(name, "organization", "", usage)
	command.Environment(cmd.Flags(), "organization")
}

// group returns a command that only holds others, which print their results as
// text or JSON.
func (a *app) group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short}
	cmd.AddCommand(commands...)
	return a.OutputFlag(cmd)
}

// defaultDir is where each platform keeps what belongs to the machine.
func defaultDir() string {
	switch runtime.GOOS {
	case "windows":
		if data := os.Getenv("ProgramData"); data != "" {
			return filepath.Join(data, "badgeagent")
		}
		return `C:\ProgramData\badgeagent`
	case "darwin":
		return "/Library/Application Support/badgeagent"
	}
	return "/var/lib/badgeagent"
}

// host is what starts the program and is told how it is: a terminal or
// systemd, or Windows' service manager.
type host struct {
	ready  func(serve.Serving) // told when the daemon serves; nil: nobody is
	reload <-chan os.Signal    // asks the daemon to read its secrets again; nil: SIGHUP does
}

// reloads is where the daemon is asked to read its secrets again.
func (h host) reloads() <-chan os.Signal {
	if h.reload != nil {
		return h.reload
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	return reload
}
