// Package operator is the operator's commands: each is one conversation with a
// running relay's AdminService, printed for people or, with --output json, as
// the answer's JSON.
//
// The package decides nothing that the relay decides: names, limits and
// certificates go over as they were given, and refusals come back in the
// relay's words with its reason.
package operator

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
)

// Terminal is where the commands read and write, with the flags that all of
// them share.
type Terminal struct {
	*command.Terminal

	config  string
	address string
	tls     clientTLS
	timeout time.Duration
}

// Commands returns the operator's commands.
func (t *Terminal) Commands() []*cobra.Command {
	commands := []*cobra.Command{
		t.organization(), t.credential(), t.subscription(), t.mailbox(), t.app(), t.status(), t.probe(),
	}
	for _, c := range commands {
		t.flags(c)
	}
	return commands
}

func (t *Terminal) flags(c *cobra.Command) {
	t.OutputFlag(c)
	f := c.PersistentFlags()
	f.StringVar(&t.config, "config", "", "the relay's configuration `file`, where its admin listener is read")
	f.StringVar(&t.address, "admin", "", "the admin listener: a socket's path or host:port (default: the configuration's)")
	f.StringVar(&t.tls.certificate, "tls-cert", "", "your certificate `file`, for an admin listener on TCP")
	f.StringVar(&t.tls.key, "tls-key", "", "its private key `file`")
	f.StringVar(&t.tls.authorities, "ca", "", "PEM `file` of the authorities that sign the relay's certificate (default: the system's)")
	f.StringVar(&t.tls.name, "tls-name", "", "the name in the relay's certificate (default: the host of --admin)")
	command.Duration(f, &t.timeout, "timeout", time.Millisecond, 0, "give up after this time (default: 30s; for a probe 2m; for an import or a restore never)")
	command.Environment(f, "config", "admin", "tls-cert", "tls-key", "ca", "tls-name", "timeout")
	command.Files(c, "config", "yaml", "yml")
	for _, name := range []string{"admin", "tls-cert", "tls-key", "ca"} {
		command.Files(c, name)
	}
}

// action is what a command does with a connected client.
type action func(ctx context.Context, admin pb.AdminServiceClient, args []string) error

// run makes an action a command's RunE.
func (t *Terminal) run(do action) func(*cobra.Command, []string) error {
	return t.within(30*time.Second, do)
}

// within is run for an action that takes another time; 0: no limit.
func (t *Terminal) within(limit time.Duration, do action) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		conn, where, err := t.dial(c)
		if err != nil {
			return err
		}
		defer conn.Close() // the answer is there already
		ctx, cancel := bounded(c.Context(), cmp.Or(t.timeout, limit))
		defer cancel()
		admin := pb.NewAdminServiceClient(conn)
		return explain(c, do(ctx, admin, args), where, func(reason string) string { return advise(ctx, c, admin, reason) })
	}
}

func bounded(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

func when(at *timestamppb.Timestamp) string {
	if at == nil {
		return "-"
	}
	return command.Time(at.AsTime())
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// unlimited prints a limit, whose 0 means none.
func unlimited[T uint32 | uint64](n T) string {
	if n == 0 {
		return "unlimited"
	}
	return fmt.Sprint(n)
}
