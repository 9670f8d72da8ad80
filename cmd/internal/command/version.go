package command

import (
	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/buildinfo"
)

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
