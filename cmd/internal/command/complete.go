package command

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionTime is how long somebody who presses Tab waits for names, ours.
const completionTime = 2 * time.Second

// Completion completes a word with the names that list returns, such as those of
// organizations. Where it fails there is nothing to offer.
func (t *Terminal) Completion(list func(ctx context.Context, c *cobra.Command) ([]string, error)) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		if fromEnvironment(c, t) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), completionTime)
		defer cancel()
		found, err := list(ctx, c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, name := range found {
			if strings.HasPrefix(name, word) && printable(name) {
				names = append(names, name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// First completes the first argument only, and offers nothing after it.
func First(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(c, args, word)
	}
}

// FlagCompletion sets how a flag of c is completed.
func FlagCompletion(c *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // there is no such flag
	}
}

// Files completes a flag of c with files whose names end so, without the dot;
// none: all files.
func Files(c *cobra.Command, flag string, endings ...string) {
	directive := cobra.ShellCompDirectiveDefault
	if len(endings) > 0 {
		directive = cobra.ShellCompDirectiveFilterFileExt
	}
	FlagCompletion(c, flag, cobra.FixedCompletions(endings, directive))
}

// Directories completes a flag of c with directories.
func Directories(c *cobra.Command, flag string) {
	FlagCompletion(c, flag, cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs))
}
