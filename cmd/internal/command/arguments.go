package command

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// argumentsOf reads from a command's Use line which arguments it takes.
func argumentsOf(c *cobra.Command) cobra.PositionalArgs {
	_, rest, _ := strings.Cut(c.Use, " ")
	var needed, possible []string
	many := strings.Contains(rest, "...")
	for word := range brackets(rest) {
		possible = append(possible, word)
		if word[0] == '<' {
			needed = append(needed, word)
		}
	}
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < len(needed):
			return Usage("%s needs %s", Path(c), strings.Join(needed[len(args):], " and "))
		case many || len(args) <= len(possible):
			return nil
		case len(possible) == 0 && c.HasSubCommands():
			return knownCommand(c, args)
		case len(possible) == 0 && c.Flags().Lookup("config") != nil && slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(args[0])):
			return Usage("%s takes no argument, and got %q; name a configuration with --config", Path(c), args[0])
		case len(possible) == 0:
			return Usage("%s takes no argument, and got %q", Path(c), args[0])
		}
		return Usage("%s takes %s, and got %q beyond that", Path(c), strings.Join(possible, " and "), args[len(possible)])
	}
}

// brackets yields what is in <> or [], with these.
func brackets(s string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for {
			start := strings.IndexAny(s, "<[")
			if start < 0 {
				return
			}
			end := strings.IndexAny(s[start:], ">]")
			if end < 0 || !yield(s[start:start+end+1]) {
				return
			}
			s = s[start+end+1:]
		}
	}
}
