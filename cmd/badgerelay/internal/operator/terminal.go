package operator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "badgerelay/proto/badgerelay/v1"
)

// Terminal is where the commands read and write, with the flags that all of
// them share.
type Terminal struct {
	In       io.Reader
	Out, Err io.Writer
	// Getenv reads the environment.
	Getenv func(string) string

	output  string
	config  string
	address string
	tls     clientTLS
	timeout time.Duration
}

// ErrUsage is wrapped by errors of a command line that can't be meant.
var ErrUsage = errors.New("wrong usage")

// ErrUnreachable is wrapped when no relay answered.
var ErrUnreachable = errors.New("relay not reached")

func usage(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUsage}, args...)...)
}

// Commands returns the operator's commands.
func (t *Terminal) Commands() []*cobra.Command {
	commands := []*cobra.Command{
		t.organization(), t.credential(), t.subscription(), t.app(), t.status(), t.probe(),
	}
	for _, c := range commands {
		t.flags(c)
	}
	return commands
}

func (t *Terminal) flags(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVarP(&t.output, "output", "o", "text", "text or json")
	f.StringVar(&t.config, "config", "", "the relay's configuration, where its admin listener is read")
	f.StringVar(&t.address, "admin", "", "the admin listener: a socket's path or host:port (default $BADGERELAY_ADMIN, else the configuration's)")
	f.StringVar(&t.tls.certificate, "tls-cert", "", "your certificate, for an admin listener on TCP")
	f.StringVar(&t.tls.key, "tls-key", "", "its private key")
	f.StringVar(&t.tls.authorities, "tls-ca", "", "authorities that sign the relay's certificate (default: the system's)")
	f.StringVar(&t.tls.name, "tls-name", "", "the name in the relay's certificate (default: the host of --admin)")
	f.DurationVar(&t.timeout, "timeout", 0, "give up after this time (default: 30s; for a probe 2m; for an import or a restore never)")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
}

// action is what a command does with a connected client.
type action func(ctx context.Context, admin pb.AdminServiceClient, args []string) error

// run makes an action a command's RunE.
func (t *Terminal) run(do action) func(*cobra.Command, []string) error {
	return t.within(30*time.Second, do)
}

// within is run for an action that takes another time; 0: no limit.
func (t *Terminal) within(limit time.Duration, do action) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if t.output != "text" && t.output != "json" {
			return usage("--output is text or json, not %q", t.output)
		}
		conn, where, err := t.dial()
		if err != nil {
			return err
		}
		defer conn.Close() // the answer is there already
		ctx, cancel := bounded(cmd.Context(), cmp.Or(t.timeout, limit))
		defer cancel()
		return explain(do(ctx, pb.NewAdminServiceClient(conn), args), where)
	}
}

func bounded(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

func (t *Terminal) json() bool { return t.output == "json" }

// say prints a line for people; programs that asked for JSON do not get it.
func (t *Terminal) say(format string, args ...any) {
	if !t.json() {
		fmt.Fprintf(t.Out, format+"\n", args...)
	}
}

// print prints a message: as JSON, or with text.
func (t *Terminal) print(m proto.Message, text func()) error {
	if !t.json() {
		text()
		return nil
	}
	data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	var indented any
	if err := json.Unmarshal(data, &indented); err != nil { // protojson varies its spaces on purpose
		return fmt.Errorf("encode answer: %w", err)
	}
	return t.value(indented)
}

// value prints any value as JSON.
func (t *Terminal) value(v any) error {
	encoder := json.NewEncoder(t.Out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// table prints rows under a heading, columns aligned.
func (t *Terminal) table(heading string, rows [][]string) {
	w := tabwriter.NewWriter(t.Out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(heading, " ", "\t"))
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush() // as with any print to a terminal
}

// list prints names and values, the colons in one column.
func (t *Terminal) list(fields ...[2]string) {
	width := 0
	for _, f := range fields {
		width = max(width, len(f[0]))
	}
	for _, f := range fields {
		fmt.Fprintln(t.Out, strings.TrimRight(fmt.Sprintf("%-*s : %s", width, f[0], f[1]), " "))
	}
}

// whenLayout is how times are shown.
const whenLayout = "2006-01-02 15:04:05Z"

func when(at *timestamppb.Timestamp) string {
	if at == nil {
		return "-"
	}
	return at.AsTime().UTC().Format(whenLayout)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// unlimited prints a limit, whose 0 means none.
func unlimited[T uint32 | uint64](n T) string {
	if n == 0 {
		return "unlimited"
	}
	return fmt.Sprint(n)
}
