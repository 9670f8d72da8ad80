package main

import (
	"context"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "print the version", Args: cobra.NoArgs,
		RunE: a.do(func(context.Context, []string) error {
			v := buildVersion()
			a.say("badgeagent %s %s/%s %s", v, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return a.result(map[string]string{"version": v, "os": runtime.GOOS, "architecture": runtime.GOARCH, "go": runtime.Version()})
		}),
	}
}

// version is set by the linker (see the Makefile), and by nothing else.
var version string

// buildVersion is the linker's version, the module's, or the commit's.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
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
