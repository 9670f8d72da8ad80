package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/buildinfo"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/process"
)

// Exit codes of all programs.
const (
	Done        = 0 // what was asked for is done
	Failed      = 1 // it failed, or was refused
	Misused     = 2 // the command line or the configuration is wrong: repeating it does not help
	Unreachable = 3 // no relay was reached: nothing answers, or what answers shows another certificate or speaks another protocol
)

// ExitCodes is the paragraph of a program's help about its exit codes.
const ExitCodes = `Exit codes: 0 done; 1 failed or refused; 2 wrong usage or configuration;
3 no relay was reached: nothing answers, or nothing that shows a relay's
certificate and speaks its protocol.`

// Removals is the paragraph of a program's help about what removals of nothing do.
const Removals = `To remove what is not there: a device that is not on the mailbox is done (0), and the
answer says so ("removed": false). The name of an organization or a credential that the
relay does not have is refused (1), as by every other command: it may be mistyped.`

// ErrReported ends a command that has printed itself what failed.
var ErrReported = errors.New("failed")

// ErrUnreachable is wrapped when no relay was reached: Run returns Unreachable.
var ErrUnreachable = errors.New("relay not reached")

// Unreached marks err as one of a relay that did not answer.
func Unreached(err error) error { return &unreachedError{err} }

type unreachedError struct{ error }

func (e *unreachedError) Unwrap() []error { return []error{e.error, ErrUnreachable} }

// UsageError is a command line that can't be meant. Run adds where help is.
type UsageError struct{ Err error }

// Error returns what is wrong.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *UsageError) Unwrap() error { return e.Err }

// Usage returns a UsageError.
func Usage(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// InvalidError is wrong input other than the command line's form: a
// configuration, or a value that the relay refuses as one that can't be.
type InvalidError struct{ error }

// Unwrap returns what is wrong.
func (e *InvalidError) Unwrap() error { return e.error }

// Invalid makes err an InvalidError; nil stays nil.
func Invalid(err error) error {
	if err == nil {
		return nil
	}
	return &InvalidError{err}
}

// Invalidf returns an InvalidError.
func Invalidf(format string, args ...any) error { return &InvalidError{fmt.Errorf(format, args...)} }

// Run executes args, without the program's name, and returns the exit code. An
// error is printed to t.Err, each of its lines after the program's name.
func Run(ctx context.Context, root *cobra.Command, t *Terminal, args []string) int {
	t.Version = cmp.Or(t.Version, buildinfo.Read().Version)
	out := &result{w: t.Out}
	t.Out = out
	if t.In != nil {
		t.In = &input{ctx, t.In}
	}
	root.SetArgs(args)
	root.SetIn(t.In)
	root.SetOut(t.Out)
	root.SetErr(t.Err)
	prepare(root, t, args)
	called, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = out.lost()
	}
	if err == nil {
		return Done
	}
	_, usage := errors.AsType[*UsageError](err)
	if !errors.Is(err, ErrReported) {
		printLines(t, root.Name(), err.Error())
	}
	if usage {
		fmt.Fprintf(t.Err, "See '%s --help'.\n", called.CommandPath())
	}
	return exitCode(err, usage)
}

// result is where results are printed. It remembers that one was lost, which is no
// success. It is safe for concurrent use if what it writes to is.
type result struct {
	w   io.Writer
	err atomic.Pointer[error]
}

func (r *result) Write(p []byte) (int, error) {
	n, err := r.w.Write(p)
	if err != nil {
		err = fmt.Errorf("print the result: %w", err)
		r.err.CompareAndSwap(nil, &err)
	}
	return n, err
}

// Unwrap returns what it writes to.
func (r *result) Unwrap() io.Writer { return r.w }

// lost returns why not all was printed; nil: all was.
func (r *result) lost() error {
	if err := r.err.Load(); err != nil {
		return *err
	}
	return nil
}

// dialing is how gRPC wraps what the system says of an address.
var dialing = regexp.MustCompile(`connection error: desc = "transport: (?:[Ee]rror while dialing: )?((?:[^"\\]|\\.)*)"`)

// undialed leaves that out.
func undialed(text string) string { return dialing.ReplaceAllString(text, "$1") }

// printLines prints an error's lines. pgx has one for each attempt at an address, which
// begins with a tab, and tries an address twice.
func printLines(t *Terminal, program, text string) {
	before := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if rest, tab := strings.CutPrefix(line, "\t"); tab {
			line = "  " + rest
		}
		line = undialed(line)
		if line != before {
			fmt.Fprintf(t.Err, "%s: %s\n", program, Escape(line))
		}
		before = line
	}
}

func exitCode(err error, usage bool) int {
	_, invalid := errors.AsType[*InvalidError](err)
	_, problem := errors.AsType[*configfile.Problem](err)
	switch {
	case usage, invalid, problem && !configfile.OfClock(err): // the clock may be right at the next start
		return Misused
	case errors.Is(err, ErrUnreachable):
		return Unreachable
	}
	return Failed
}

// prepare gives every command of the tree what all have.
func prepare(root *cobra.Command, t *Terminal, args []string) {
	prepareRoot(root, t, args)
	usage := root.UsageTemplate()
	each(root, func(c *cobra.Command) {
		c.SetUsageTemplate(usage) // not its group's
		c.SuggestFor = append(c.SuggestFor, synonyms[c.Name()]...)
		describeEnvironment(c, root.Name())
		once(c)
		if c.HasSubCommands() && !c.Runnable() {
			prepareGroup(c)
		} else {
			prepareLeaf(c)
		}
	})
}

func prepareRoot(root *cobra.Command, t *Terminal, args []string) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.Version = t.Version
	root.SetVersionTemplate(buildinfo.Read().Line(root.Name()) + "\n")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(helpCommand(root))
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd(args...)
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		return misused(errors.Join(fromEnvironment(c, t), notEmpty(c), given(c)))
	}
}

// prepareGroup has a command that only holds others name them.
func prepareGroup(c *cobra.Command) {
	c.Args, c.RunE = cobra.MatchAll(hyphened, knownCommand), needsCommand
	c.SetUsageTemplate(strings.Replace(c.UsageTemplate(), "{{if .Runnable}}\n  {{.UseLine}}{{end}}", "", 1)) // alone it does nothing
	if !c.HasParent() {
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
}

// prepareLeaf has a command take the arguments that its Use line names. Those of
// cobra check their own.
func prepareLeaf(c *cobra.Command) {
	check := c.Args
	if check == nil {
		check = cobra.MatchAll(hyphened, argumentsOf(c))
	}
	c.Args = func(c *cobra.Command, args []string) error { return misused(check(c, args)) }
}

// misused makes err a UsageError; nil stays nil.
func misused(err error) error {
	if err == nil {
		return nil
	}
	return &UsageError{err}
}

func each(c *cobra.Command, do func(*cobra.Command)) {
	do(c)
	for _, child := range c.Commands() {
		each(child, do)
	}
}

// synonyms are what people type for our verbs.
var synonyms = map[string][]string{
	"add":     {"create", "new", "register", "insert", "subscribe"},
	"list":    {"ls", "all"},
	"remove":  {"delete", "rm", "del", "unsubscribe"},
	"show":    {"get", "describe", "view", "info"},
	"update":  {"set", "edit", "change", "modify"},
	"serve":   {"run", "start", "daemon"},
	"check":   {"validate", "verify", "test", "lint"},
	"example": {"init", "sample", "template"},
	"ensure":  {"create", "new", "generate"},
	"status":  {"info", "stat"},
}

// knownCommand is the Args of a command that only holds others.
func knownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if slices.Contains(names(c), args[0]) { // cobra takes what comes after -- for no command
		return Usage("%q comes after --, where no command can be", args[0])
	}
	return Usage("unknown command %q for %q%s", args[0], c.CommandPath(), suggestion(c, args[0]))
}

func needsCommand(c *cobra.Command, _ []string) error {
	return Usage("%s needs one of its commands: %s", Path(c), strings.Join(names(c), ", "))
}

func names(c *cobra.Command) []string {
	var all []string
	for _, child := range c.Commands() {
		if child.IsAvailableCommand() {
			all = append(all, child.Name())
		}
	}
	slices.Sort(all)
	return all
}

// suggestion is "; did you mean ...?", or what there is.
func suggestion(c *cobra.Command, word string) string {
	if c == c.Root() {
		if deeper := below(c, word); len(deeper) > 0 && len(deeper) <= 4 {
			return fmt.Sprintf("; did you mean %s?", Words(deeper))
		}
	}
	known := names(c)
	if near := configfile.Nearest(word, known); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	c.SuggestionsMinimumDistance = 1 // synonyms and beginnings; configfile.Nearest knows the rest
	if s := c.SuggestionsFor(word); len(s) > 0 {
		return fmt.Sprintf("; did you mean %q?", s[0])
	}
	switch len(known) {
	case 0:
		return ", which has no commands below it"
	case 1:
		return "; there is " + known[0]
	}
	return "; there are " + strings.Join(known, ", ")
}

// below returns the commands of groups that have this name, or are meant by it, in quotes
// and with their groups.
func below(root *cobra.Command, word string) (found []string) {
	for _, group := range root.Commands() {
		for _, c := range group.Commands() {
			if c.IsAvailableCommand() && (c.Name() == word || slices.Contains(c.SuggestFor, word)) && !slices.Contains(synonyms[c.Name()], word) {
				found = append(found, fmt.Sprintf("%q", Path(c)))
			}
		}
	}
	return found
}

func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [command ...]", Short: "explain a command",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			c, _, err := root.Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return names(c), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err == nil && len(rest) > 0 {
				err = knownCommand(c, rest)
			}
			if err != nil {
				return misused(err)
			}
			c.InitDefaultHelpFlag()
			return c.Help()
		},
	}
}

// Main runs a program as systemd or a person starts it, and returns its exit code. SIGINT
// or SIGTERM ends its context; a second one kills at once.
func Main(program func(*Terminal) *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	stdout, stderr := process.Standard()
	defer stdout.Flush()
	defer stderr.Flush()
	t := &Terminal{In: os.Stdin, Out: stdout, Err: stderr}
	return Run(ctx, program(t), t, os.Args[1:])
}

// VersionCommand prints version, commit and Go of the program; the flag --version
// prints the same line.
func (t *Terminal) VersionCommand() *cobra.Command {
	return t.OutputFlag(&cobra.Command{
		Use: "version", Short: "print version, commit and Go of the program",
		RunE: func(c *cobra.Command, _ []string) error {
			info := buildinfo.Read()
			return t.Print(info, func() { t.Say("%s", info.Line(c.Root().Name())) })
		},
	})
}
