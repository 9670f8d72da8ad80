package command

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// BuildVersion returns the version that the linker has set, or else the
// module's, or the commit that the program was built from.
func BuildVersion(linked string) string {
	if linked != "" {
		return linked
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "devel"
}

func versionLine(program, version string) string {
	return fmt.Sprintf("%s %s %s/%s %s", program, version, runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// VersionCommand prints the version; the flag --version prints the same line.
func (t *Terminal) VersionCommand() *cobra.Command {
	return t.OutputFlag(&cobra.Command{
		Use: "version", Short: "print the version",
		RunE: func(c *cobra.Command, _ []string) error {
			return t.Print(struct {
				Version      string `json:"version"`
				OS           string `json:"os"`
				Architecture string `json:"architecture"`
				Go           string `json:"go"`
			}{t.Version, runtime.GOOS, runtime.GOARCH, runtime.Version()}, func() {
				t.Say("%s", versionLine(c.Root().Name(), t.Version))
			})
		},
	})
}
