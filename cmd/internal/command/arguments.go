package command

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// inBrackets is what is in <> or [], with these.
var inBrackets = regexp.MustCompile(`[<\[][^>\]]*[>\]]`)

// argumentsOf reads from a command's Use line which arguments it takes.
func argumentsOf(c *cobra.Command) cobra.PositionalArgs {
	_, rest, _ := strings.Cut(c.Use, " ")
	many := strings.Contains(rest, "...")
	possible := inBrackets.FindAllString(rest, -1)
	var needed []string
	for _, word := range possible {
		if word[0] == '<' {
			needed = append(needed, word)
		}
	}
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < len(needed):
			return Usage("%s needs %s", Path(c), strings.Join(needed[len(args):], " and "))
		case emptyArgument(possible, args) != "":
			return Usage("%s: %s is empty; is a shell variable not set?", Path(c), emptyArgument(possible, args))
		case many || len(args) <= len(possible):
			return nil
		case len(possible) == 0 && c.HasSubCommands():
			return knownCommand(c, args)
		case len(possible) == 0 && c.Flags().Lookup("config") != nil && slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(args[0])):
			return Usage("%s takes no argument, and got %q; name a configuration with --config", Path(c), args[0])
		case len(possible) == 0 && flagFor(c, args[0]) != "":
			return Usage("%s takes no argument, and got %q; give it with %s", Path(c), args[0], flagFor(c, args[0]))
		case len(possible) == 0:
			return Usage("%s takes no argument, and got %q", Path(c), args[0])
		}
		return Usage("%s takes %s, and got %q beyond that", Path(c), strings.Join(possible, " and "), args[len(possible)])
	}
}

// flagFor returns the flag, or flags joined by or, that an argument may be meant for: what
// the command needs and lacks, or what takes a mailbox or a domain. Empty: none.
func flagFor(c *cobra.Command, argument string) string {
	if missing, _ := amiss(c); len(missing) == 1 {
		return missing[0]
	}
	name := "organization"
	if strings.Contains(argument, "@") {
		name = "mailbox"
	}
	if f := c.Flags().Lookup(name); f != nil && !f.Changed && strings.Contains(argument, ".") {
		return "--" + name
	}
	return ""
}

// noHyphen matches a dash that stands where a flag's hyphens would: what a web page or a
// word processor makes of them.
var noHyphen = regexp.MustCompile(`^\p{Pd}`)

// hyphened refuses arguments that begin with another dash than the hyphen.
func hyphened(_ *cobra.Command, args []string) error {
	for _, arg := range args {
		if dash := noHyphen.FindString(arg); dash != "" && dash != "-" {
			return Usage("%q begins with a dash, %s, and no hyphen; write --%s", arg, dash, strings.TrimLeft(arg, dash+"-"))
		}
	}
	return nil
}

// emptyArgument returns what the first empty argument stands for; empty: there is none. A
// mailbox is left out: it is refused with what a mailbox is.
func emptyArgument(possible, args []string) string {
	at := slices.Index(args, "")
	if at < 0 || at >= len(possible) || strings.Contains(possible[at], "mailbox") {
		return ""
	}
	return possible[at]
}
