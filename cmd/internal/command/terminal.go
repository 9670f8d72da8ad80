package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Terminal is where a program's commands read and write. Text from outside that
// is printed through it can't move the cursor or hide anything (Escape).
type Terminal struct {
	In       io.Reader
	Out, Err io.Writer
	// Getenv reads the environment; nil: os.Getenv.
	Getenv func(string) string
	// Version is what --version prints; empty: Run fills in that of the build.
	Version string
	// DryRun says that --dry-run was given.
	DryRun bool

	output string // text or json; empty: text
}

// Typed reports whether a person would have to type what is read.
func (t *Terminal) Typed() bool { return onTerminal(t.In) }

// Binary refuses to write what, which is no text, to a terminal.
func (t *Terminal) Binary(what string) error {
	if onTerminal(t.Out) {
		return Usage("standard output is a terminal, and %s is no text; name a file, or write > and one", what)
	}
	return nil
}

// onTerminal reports whether what is read or written is a terminal.
func onTerminal(stream any) bool {
	switch s := stream.(type) {
	case *result:
		stream = s.w
	case *input:
		stream = s.in
	}
	f, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

func (t *Terminal) getenv(name string) string {
	if t.Getenv == nil {
		return os.Getenv(name)
	}
	return t.Getenv(name)
}

// OutputFlag adds --output to c and the commands below it. JSON names are in
// lowerCamelCase, as in the JSON form of the contract.
func (t *Terminal) OutputFlag(c *cobra.Command) *cobra.Command {
	f := c.PersistentFlags()
	Choice(c, f, &t.output, "output", "o", "how to print the result: text or json; errors are text in either, on standard error", "text", "json")
	Environment(f, "output")
	return c
}

// JSON reports whether the result is to be printed as JSON.
func (t *Terminal) JSON() bool { return t.output == "json" }

// Say prints a line for people; programs that asked for JSON do not get it.
// Strings and errors among args are escaped.
func (t *Terminal) Say(format string, args ...any) {
	if !t.JSON() {
		fmt.Fprintf(t.Out, format+"\n", safe(args)...)
	}
}

// Warn prints a warning to standard error, whatever the output.
func (t *Terminal) Warn(format string, args ...any) {
	fmt.Fprintln(t.Err, undialed(fmt.Sprintf("warning: "+format, safe(args)...)))
}

// DryRunFlag adds --dry-run to a command that changes something.
func (t *Terminal) DryRunFlag(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&t.DryRun, "dry-run", false, "say what would be done, and do nothing")
	return c
}

// Answer prints what a call returned: its answer, for people with text; with --dry-run
// what it would have done; or its error.
func (t *Terminal) Answer(answer any, err error, would string, text func()) error {
	switch {
	case err != nil:
		return err
	case t.DryRun:
		return t.WouldAnswer(answer, "%s", would)
	}
	return t.Print(answer, text)
}

// Would says what --dry-run leaves undone, such as "remove fabrikam.com".
func (t *Terminal) Would(format string, args ...any) error {
	return t.WouldAnswer(nil, format, args...)
}

// WouldAnswer is Would with the answer that the command would have had; nil: there is
// none to show.
func (t *Terminal) WouldAnswer(answer any, format string, args ...any) error {
	what := fmt.Sprintf(format, safe(args)...)
	answer, err := encodable(answer)
	if err != nil {
		return err
	}
	return t.Print(struct {
		DryRun bool   `json:"dryRun"`
		Would  string `json:"would"`
		Answer any    `json:"answer,omitempty"`
	}{true, what, answer}, func() { t.Say("Dry run: this would %s.", what) })
}

// Print prints a result: v as JSON, or with text.
func (t *Terminal) Print(v any, text func()) error {
	if !t.JSON() {
		text()
		return nil
	}
	return t.Value(v)
}

// Value prints v as JSON over several lines; messages of the contract in their
// JSON form, with every field.
func (t *Terminal) Value(v any) error {
	v, err := encodable(v)
	if err != nil {
		return err
	}
	return t.encode(v, "  ")
}

// encodable returns what package json has to encode for v. Of a message it is JSON to
// encode anew: protojson varies its spaces on purpose.
func encodable(v any) (any, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return v, nil
	}
	data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return json.RawMessage(data), nil
}

// Line prints v as one line of JSON.
func (t *Terminal) Line(v any) error { return t.encode(v, "") }

func (t *Terminal) encode(v any, indent string) error {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetIndent("", indent)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(t.Out, escapeJSON(b.String()))
	return err
}

// Table prints rows under a heading, whose words are the columns.
func (t *Terminal) Table(heading string, rows [][]string) {
	w := tabwriter.NewWriter(t.Out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(heading, " ", "\t"))
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, Visible(cell))
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // as with any print to a terminal
}

// Field is one line of a list: its name and value.
type Field = [2]string

// List prints fields with their colons in one column.
func (t *Terminal) List(fields ...Field) {
	width := 0
	for _, f := range fields {
		width = max(width, len(f[0]))
	}
	for _, f := range fields {
		fmt.Fprintln(t.Out, strings.TrimRight(fmt.Sprintf("%-*s : %s", width, f[0], Visible(f[1])), " "))
	}
}
