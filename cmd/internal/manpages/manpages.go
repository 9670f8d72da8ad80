// Package manpages writes a program's manual pages, from what its commands say of
// themselves with --help. Packages of Linux distributions bring them.
package manpages

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"badgerelay/cmd/internal/buildinfo"
	"badgerelay/cmd/internal/command"
)

// Command is the hidden command "man" of a program: a page of section 1 for the
// program and for each command below it, in a directory that is there. The same
// program and the same --date give the same pages.
func Command() *cobra.Command {
	var date string
	c := &cobra.Command{
		Use: "man <directory>", Short: "write manual pages", Hidden: true,
		RunE: func(c *cobra.Command, args []string) error {
			day, err := time.Parse(time.DateOnly, date)
			if err != nil {
				return command.Usage("--date is %q: it is a day such as 2026-01-31", date)
			}
			root := c.Root()
			root.DisableAutoGenTag = true // else they tell when they were written
			header := &doc.GenManHeader{Section: "1", Date: &day, Source: root.Name() + " " + buildinfo.Read().Version, Manual: "badgerelay"}
			return doc.GenManTree(root, header, args[0])
		},
	}
	c.Flags().StringVar(&date, "date", time.Now().UTC().Format(time.DateOnly), "the `day` that the pages tell")
	return c
}
