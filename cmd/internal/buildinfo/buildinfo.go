// Package buildinfo tells from what a program was built: its version, the commit and
// the Go that made it.
//
// It does not look at files or at git: what it tells is in the program.
package buildinfo

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version and Commit are set by the linker and by nothing else, save tests:
//
//	-ldflags "-X badgerelay/cmd/internal/buildinfo.Version=1.2.3 -X badgerelay/cmd/internal/buildinfo.Commit=<40 hex digits>"
//
// Empty: what the Go toolchain has written into the program.
var Version, Commit string

// Info is what a program was built from. Its JSON is what "version --output json"
// prints.
type Info struct {
	Version      string `json:"version"`          // such as 1.2.3; "devel": nobody has said
	Commit       string `json:"commit,omitempty"` // of git, in hex; empty: nobody has said
	OS           string `json:"os"`               // GOOS
	Architecture string `json:"architecture"`     // GOARCH
	Go           string `json:"go"`               // such as go1.26.1
}

// Read returns what this program was built from.
func Read() Info {
	i := Info{Version: Version, Commit: Commit, OS: runtime.GOOS, Architecture: runtime.GOARCH, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		i.fill(info)
	}
	if i.Version == "" {
		i.Version = "devel"
	}
	return i
}

// fill takes from the toolchain what the linker was not told.
func (i *Info) fill(info *debug.BuildInfo) {
	if v := info.Main.Version; i.Version == "" && v != "(devel)" {
		i.Version = v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && i.Commit == "" {
			i.Commit = s.Value
		}
	}
}

// Line is the one line that "version" prints for the program.
func (i Info) Line(program string) string {
	line := fmt.Sprintf("%s %s", program, i.Version)
	if i.Commit != "" {
		line += " commit " + i.Commit
	}
	return line + fmt.Sprintf(" %s/%s %s", i.OS, i.Architecture, i.Go)
}
