package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitMisuse = 2
)

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// app is one run of the program: its flags and streams.
type app struct {
	streams
	host
	dir     string
	output  string
	ca      string
	relays  []string
	timeout time.Duration
	whatIf  bool
	config  string // the daemon's

	probeApp, probeMailbox string

	product, productVersion string // of the mail server the agent speaks for
	started                 bool   // a command's own code runs: what fails now is no misuse
}

// misuse is an error in how the program was called.
type misuse struct{ err error }

func (e *misuse) Error() string { return e.err.Error() }
func (e *misuse) Unwrap() error { return e.err }

func misused(format string, args ...any) error { return &misuse{fmt.Errorf(format, args...)} }

// errReported ends a command that has said itself what failed.
var errReported = errors.New("failed")

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, s streams) int { return runOn(ctx, args, s, host{}) }

func runOn(ctx context.Context, args []string, s streams, h host) int {
	a := &app{streams: s, host: h}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if !errors.Is(err, errReported) {
		fmt.Fprintf(s.err, "badgeagent: %v\n", err)
	}
	if _, ok := errors.AsType[*misuse](err); ok || !a.started {
		fmt.Fprintln(s.err, "Run 'badgeagent --help' for usage.")
		return exitMisuse
	}
	return exitFailed
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
  5. run              watch the mailboxes and keep their badges right

Everything is kept in one directory (--dir). Every command may be repeated.

Exit codes:
  0  done
  1  failed: the reason is on standard error
  2  misuse: a flag, an argument or a count that cannot be read`,
		Example: `  badgeagent cert ensure --domain fabrikam.com
  badgeagent auth-server set --metadata-url 'https://relay.example/metadata/json/1?realm=fabrikam.com'
  badgeagent proxy enable --organization fabrikam.com
  badgeagent probe
  badgeagent publish ann@fabrikam.com=7`,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.checkFlags() },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.dir, "dir", defaultDir(), "the directory that holds everything badgeagent keeps")
	flags.StringVar(&a.output, "output", "text", "text or json")
	root.AddCommand(a.certCommand(), a.metadataCommand(), a.authServerCommand(), a.proxyCommand(), a.publishCommand(),
		a.runCommand(), a.configCommand(),
		a.subscribeCommand(), a.unsubscribeCommand(), a.subscriptionsCommand(), a.probeCommand(), a.versionCommand())
	root.AddCommand(a.serviceCommands()...)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &misuse{err} })
	return root
}

// checkFlags checks the flags that every command has.
func (a *app) checkFlags() error {
	if a.output != "text" && a.output != "json" {
		return misused("--output is %q, want text or json", a.output)
	}
	if a.dir == "" {
		return misused("--dir is empty")
	}
	return nil
}

// do wraps a command's code.
func (a *app) do(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.started = true
		return f(cmd.Context(), args)
	}
}

// relayFlags adds the flags of commands that call a relay.
func (a *app) relayFlags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&a.relays, "relay", nil, "a relay's `host:port`; may be repeated (default: what the metadata document says)")
	a.caFlag(cmd)
	cmd.Flags().DurationVar(&a.timeout, "timeout", 30*time.Second, "how long to try")
	cmd.Flags().StringVar(&a.product, "product", "", "the mail server `product` to speak for, such as Exchange")
	cmd.Flags().StringVar(&a.productVersion, "product-version", "", "its `version`, such as 15.0.775.38")
}

func (a *app) caFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.ca, "ca", "", "PEM `file` of the authorities to trust for TLS (default: what auth-server set was given, or the system's)")
}

func (a *app) whatIfFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.whatIf, "what-if", false, "say what would be done, and do nothing")
}

// group returns a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return misused("%s needs one of its commands; see '%s --help'", cmd.CommandPath(), cmd.CommandPath())
		}}
	cmd.AddCommand(commands...)
	return cmd
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
