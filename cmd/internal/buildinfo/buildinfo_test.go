package buildinfo

import (
	"runtime/debug"
	"testing"
)

func TestLinkerGoesBeforeToolchain(t *testing.T) {
	info := &debug.BuildInfo{
		Main:     debug.Module{Version: "v0.9.0"},
		Settings: []debug.BuildSetting{{Key: "vcs.modified", Value: "true"}, {Key: "vcs.revision", Value: "0123abcd"}},
	}
	for _, c := range []struct {
		linked, want Info
	}{
		{Info{}, Info{Version: "v0.9.0", Commit: "0123abcd"}},
		{Info{Version: "1.2.3"}, Info{Version: "1.2.3", Commit: "0123abcd"}},
		{Info{Version: "1.2.3", Commit: "ffff"}, Info{Version: "1.2.3", Commit: "ffff"}},
	} {
		got := c.linked
		if got.fill(info); got != c.want {
			t.Errorf("%+v with the toolchain's = %+v, want %+v", c.linked, got, c.want)
		}
	}
	var none Info
	if none.fill(&debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}); none != (Info{}) {
		t.Errorf("of a program that nobody has named: %+v", none)
	}
}

func TestLine(t *testing.T) {
	i := Info{Version: "1.2.3", Commit: "0123abcd", OS: "linux", Architecture: "arm64", Go: "go1.26.1"}
	if got, want := i.Line("badgerelay"), "badgerelay 1.2.3 commit 0123abcd linux/arm64 go1.26.1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	i.Commit = ""
	if got, want := i.Line("badgerelay"), "badgerelay 1.2.3 linux/arm64 go1.26.1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
