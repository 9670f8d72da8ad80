package command

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"badgerelay/cmd/internal/configfile"
)

// flagError says which flag an unknown one may have been meant as. Where the
// command before it is unknown, no flag could be right, and that is said.
func flagError(c *cobra.Command, err error) error {
	if words := c.Flags().Args(); len(words) > 0 && c.HasSubCommands() {
		return knownCommand(c, words)
	}
	if wrong, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		if f := wrong.GetFlag(); f.Shorthand != "" && f.Shorthand+wrong.GetValue() == f.Name {
			return Usage("-%s is -%s with %q; write --%s", f.Name, f.Shorthand, wrong.GetValue(), f.Name)
		}
		if errors.Is(err, errTwice) {
			return Usage("--%s is given twice: %w", wrong.GetFlag().Name, errTwice)
		}
		switch wrong.GetFlag().Value.Type() {
		case "bool":
			return Usage("--%s is %q: it is true or false", wrong.GetFlag().Name, wrong.GetValue())
		case "intSlice":
			return Usage("--%s is %q: it is whole numbers, joined by commas", wrong.GetFlag().Name, wrong.GetValue())
		}
		return Usage("--%s is %q: %w", wrong.GetFlag().Name, wrong.GetValue(), wrong.Unwrap())
	}
	if short, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return Usage("--%s needs a value", short.GetFlag().Name)
	}
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return &UsageError{err}
	}
	name := strings.TrimLeft(unknown.GetSpecifiedName(), "-")
	if letters, _, _ := strings.Cut(unknown.GetSpecifiedShortnames(), "="); len(letters) > 1 { // -config
		name = letters
	}
	var known []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			known = append(known, f.Name)
		}
	})
	if near := configfile.Nearest(name, known); near != "" {
		return Usage("%w; did you mean --%s?", err, near)
	}
	if argument := argumentFor(c, name); argument != "" {
		return Usage("%w; %s takes it as its argument %s", err, Path(c), argument)
	}
	return &UsageError{err}
}

// argumentFor returns the argument of a command that is meant where another command has
// this flag; empty: none.
func argumentFor(c *cobra.Command, flag string) string {
	for _, argument := range inBrackets.FindAllString(c.Use, -1) {
		word := argument[1 : len(argument)-1]
		if word == flag || word == "domain" && flag == "organization" {
			return argument
		}
	}
	return ""
}

// Annotations of flags that belong together.
const (
	required    = "badgerelay_required"     // one of the flags in its value, joined by spaces, has to be given
	alternative = "badgerelay_alternatives" // at most one of them may be
)

// Require has a command refuse to run without each of the flags.
func Require(c *cobra.Command, flags ...string) {
	for _, name := range flags {
		annotate(c, required, name)
		_ = c.MarkFlagRequired(name) // completion offers it first; annotate has found it
	}
}

// RequireOne has a command refuse to run without one of the flags, or with several.
func RequireOne(c *cobra.Command, flags ...string) {
	annotate(c, required, flags...)
	AtMostOne(c, flags...)
}

// AtMostOne has a command refuse to run with several of the flags.
func AtMostOne(c *cobra.Command, flags ...string) { annotate(c, alternative, flags...) }

func annotate(c *cobra.Command, kind string, flags ...string) {
	f := c.Flags().Lookup(flags[0])
	if f == nil {
		panic("no flag --" + flags[0])
	}
	if err := c.Flags().SetAnnotation(f.Name, kind, append(f.Annotations[kind], strings.Join(flags, " "))); err != nil {
		panic(err) // it is there
	}
}

// given checks what Require, RequireOne and AtMostOne have said of a command's
// flags.
func given(c *cobra.Command) error {
	missing, several := amiss(c)
	if len(missing) > 0 {
		return Usage("%s needs %s", Path(c), enumerate(missing, "and"))
	}
	return several
}

// amiss returns the groups of flags, joined by or, of which one has to be given and none
// is, and an error about those of which several are.
func amiss(c *cobra.Command) (missing []string, several error) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		for _, group := range f.Annotations[required] {
			if len(changed(c, group)) == 0 {
				missing = append(missing, dashed(strings.Fields(group), "or"))
			}
		}
		for _, group := range f.Annotations[alternative] {
			if some := changed(c, group); len(some) > 1 {
				several = Usage("%s takes one of %s", Path(c), dashed(some, "and"))
			}
		}
	})
	return missing, several
}

// changed are the flags of a group that were given.
func changed(c *cobra.Command, group string) (some []string) {
	for _, name := range strings.Fields(group) {
		if c.Flags().Changed(name) {
			some = append(some, name)
		}
	}
	return some
}

func dashed(flags []string, word string) string {
	return "--" + strings.Join(flags, " "+word+" --")
}

// Path is how a message names a command: without the program, which is before
// the message anyway.
func Path(c *cobra.Command) string {
	if !c.HasParent() {
		return c.Name()
	}
	return strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" ")
}

// mayBeEmpty are the flags, by command, whose empty value the command itself refuses: with
// what a mailbox is, or which flag is meant.
var mayBeEmpty = map[string][]string{
	"auth-server set":     {"ca"},
	"subscription add":    {"mailbox"},
	"subscription remove": {"mailbox"},
	"device set":          {"mailbox"},
}

// notEmpty refuses flags that were given and are empty. A shell variable that is not
// set is enough for that, and "only this mailbox" must not become "all" by it.
func notEmpty(c *cobra.Command) error {
	var empty []error
	c.Flags().Visit(func(f *pflag.Flag) {
		if isEmpty(f.Value) && !slices.Contains(mayBeEmpty[Path(c)], f.Name) {
			empty = append(empty, Usage("--%s is empty; is a shell variable not set?", f.Name))
		}
	})
	return errors.Join(empty...)
}

// isEmpty reports whether a flag's value, or one of several, is the empty string.
func isEmpty(v pflag.Value) bool {
	if list, ok := v.(pflag.SliceValue); ok {
		all := list.GetSlice()
		return len(all) == 0 || slices.Contains(all, "")
	}
	return v.Type() == "string" && v.String() == ""
}

// Choice adds a flag that takes one of some words; the first is the default.
func Choice(c *cobra.Command, f *pflag.FlagSet, value *string, name, short, usage string, words ...string) {
	*value = words[0]
	f.VarP(&flagValue[string]{value, strings.Join(words, "|"), func(s string) (string, error) {
		if !slices.Contains(words, s) {
			return "", fmt.Errorf("it is %s", Words(words))
		}
		return s, nil
	}, func(s string) string { return s }}, name, short, usage)
	_ = c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
}

// flagValue is a flag of a kind that pflag does not have, or of one that says better what
// is wrong.
type flagValue[T any] struct {
	value *T
	kind  string
	read  func(string) (T, error)
	show  func(T) string
}

func (v *flagValue[T]) Set(s string) error {
	read, err := v.read(s)
	if err == nil {
		*v.value = read
	}
	return err
}

func (v *flagValue[T]) String() string {
	if v.value == nil { // pflag's question for a zero value
		return ""
	}
	return v.show(*v.value)
}

func (v *flagValue[T]) Type() string { return v.kind }

// Words joins them as people do: a, b or c.
func Words(words []string) string { return enumerate(words, "or") }

func enumerate(words []string, before string) string {
	last := len(words) - 1
	if last <= 0 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " " + before + " " + words[last]
}

// Whole is what a Count holds.
type Whole interface{ int | int64 | uint32 | uint64 }

// Count adds a flag that takes a whole number from least to most.
func Count[T Whole](f *pflag.FlagSet, value *T, name string, least, most, preset T, usage string) {
	*value = preset
	f.Var(&flagValue[T]{value, "number", func(s string) (T, error) {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || n < uint64(least) || n > uint64(most) {
			return 0, fmt.Errorf("it is a whole number from %d to %d", least, most)
		}
		return T(n), nil
	}, func(n T) string { return fmt.Sprint(n) }}, name, usage)
}

// Number adds a flag that takes a number from least to most, such as 300 or 0.5.
func Number(f *pflag.FlagSet, value *float64, name string, least, most, preset float64, usage string) {
	*value = preset
	f.Var(&flagValue[float64]{value, "number", func(s string) (float64, error) {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || !aNumber.MatchString(s) || v < least || v > most {
			return 0, fmt.Errorf("it is a number from %s to %s, such as 300 or 0.5", configfile.Decimal(least), configfile.Decimal(most))
		}
		return v, nil
	}, configfile.Decimal}, name, usage)
}

// aNumber leaves out NaN, infinity and the forms that are Go's own.
var aNumber = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)

// Duration adds a flag that takes a time of at least least, such as 30s or 5m;
// zero is printed as no default.
func Duration(f *pflag.FlagSet, value *time.Duration, name string, least, preset time.Duration, usage string) {
	*value = preset
	f.Var(&flagValue[time.Duration]{value, "duration", func(s string) (time.Duration, error) {
		v, err := time.ParseDuration(s)
		switch {
		case err != nil && aDuration.MatchString(s): // a number that does not fit
			return 0, fmt.Errorf("it is too long: the most is %.0fh", math.Floor(time.Duration(math.MaxInt64).Hours()))
		case err != nil:
			return 0, errors.New("it is a time such as 30s, 5m or 1h30m")
		case v < 0:
			return 0, errors.New("it can't be negative")
		case v < least:
			return 0, fmt.Errorf("it is a time of at least %s", least)
		}
		return v, nil
	}, func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return d.String()
	}}, name, usage)
}

// aDuration is what time.ParseDuration takes, however long it is.
var aDuration = regexp.MustCompile(`^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$`)

var errTwice = errors.New("it takes one value")

// once has the flags of c that keep one value refuse a second: pflag would let the
// last one win.
func once(c *cobra.Command) {
	for _, flags := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
		flags.VisitAll(func(f *pflag.Flag) {
			_, list := f.Value.(pflag.SliceValue)
			if _, done := f.Value.(*onceValue); !list && !done {
				f.Value = &onceValue{Value: f.Value}
			}
		})
	}
}

type onceValue struct {
	pflag.Value
	given bool
}

func (v *onceValue) Set(s string) error {
	if v.given {
		return errTwice
	}
	v.given = true
	return v.Value.Set(s)
}
