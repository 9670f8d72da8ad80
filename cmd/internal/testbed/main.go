package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"badgerelay/cmd/internal/buildinfo"
	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/testbed/site"
	"badgerelay/relay/agent/imap/imaptest"

	"github.com/spf13/cobra"
)

// roles are what testbed starts itself as.
var roles = child.Roles{site.RoleName: site.Run}

func main() {
	roles.Run()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // from here a second signal kills at once
	t := &command.Terminal{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: buildinfo.Read().Version}
	os.Exit(command.Run(ctx, root(t), t, os.Args[1:]))
}

func root(t *command.Terminal) *cobra.Command {
	var c Config
	cmd := &cobra.Command{Use: "testbed", Short: "whether a mail becomes a badge, whatever goes wrong between"}
	cmd.PersistentFlags().StringVar(&c.Bin, "bin", "bin", "the `directory` of badgerelay, badgeagent and apnssim")
	cmd.PersistentFlags().StringVar(&c.Deploy, "deploy", "deploy/dovecot", "the `directory` of Dovecot's files")
	cmd.PersistentFlags().StringVar(&c.Watch, "watch", "", "the agent's imap.watch: notify, idle or poll; empty: Dovecot notifies it")
	cmd.AddCommand(demoCommand(&c, t), burstCommand(&c, t), chaosCommand(&c, t), sendCommand(), readCommand())
	return cmd
}

// with sets the whole way up in a directory of its own for f.
func with(ctx context.Context, c *Config, f func(*Testbed) error) (err error) {
	if c.Bin, err = filepath.Abs(c.Bin); err != nil { // a program without a directory would be looked for elsewhere
		return err
	}
	if c.Dir, err = os.MkdirTemp("", "testbed-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.Dir)) }()
	if c.Watch == "" {
		c.Lua, c.Watch = true, "off"
	}
	w, err := New(ctx, *c)
	if err != nil {
		if ctx.Err() != nil {
			return nil // Ctrl-C before all was up
		}
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	return f(w)
}

func demoCommand(c *Config, t *command.Terminal) *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "show a page of phones, and how to send their users mail, until Ctrl-C", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Users = []string{"ann", "bob", "carol", "dave"}
			return with(cmd.Context(), c, func(w *Testbed) error {
				self, err := os.Executable()
				if err != nil {
					return err
				}
				fmt.Fprintf(t.Out, `Phones  %s
Send    %s send %s ann
Read    %s read %s ann
IMAP    %s, users ann, bob, carol and dave, password %s

Each mail that you send raises the number on the user's phone; reading lowers it.
Ctrl-C ends it and leaves nothing behind.
`, w.Phones.Page(), self, w.Dovecot.Dir, self, w.Dovecot.Dir, w.Dovecot.IMAP, imaptest.Password)
				<-cmd.Context().Done()
				return nil
			})
		},
	}
}

func burstCommand(c *Config, t *command.Terminal) *cobra.Command {
	var idle time.Duration
	var mailboxes, events int
	cmd := &cobra.Command{
		Use: "burst", Short: "deliver and read a lot of mail, and judge every badge at the end", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Users = Users(mailboxes)
			return with(cmd.Context(), c, func(w *Testbed) error {
				r, err := w.Play(cmd.Context(), idle, events)
				if err != nil {
					return err
				}
				if err := t.Value(r); err != nil {
					return err
				}
				if r.WrongBadges > 0 || r.ClientFaults > 0 {
					return fmt.Errorf("wrong badges: %d, client faults: %d", r.WrongBadges, r.ClientFaults)
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	command.Count(f, &mailboxes, "mailboxes", 1, 20_000, 2000, "`number` of mailboxes, each with a phone")
	command.Duration(f, &idle, "idle", 0, 10*time.Second, "how long to measure what it costs when nothing happens, before the burst and 75 s after the agent has counted every mailbox; 0: begin at once, while the agent sends its first counts again")
	command.Count(f, &events, "events", 1, 10_000_000, 10_000, "`number` of deliveries and reads")
	return cmd
}

func sendCommand() *cobra.Command {
	return &cobra.Command{
		Use: "send directory user", Short: "deliver a mail over LMTP", Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			s := &imaptest.Server{LMTP: filepath.Join(args[0], "run", "lmtp")}
			return s.Deliver(args[1], "Hello from testbed")
		},
	}
}

func readCommand() *cobra.Command {
	return &cobra.Command{
		Use: "read directory user", Short: "mark all of a user's mail read", Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			s := &imaptest.Server{Dir: args[0]}
			return s.Admin("flags", "add", "-u", args[1], `\Seen`, "mailbox", "INBOX", "all")
		},
	}
}
