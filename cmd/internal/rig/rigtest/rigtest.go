// Package rigtest has what tests of rigs share: the programs that they run, and
// the check that nothing stays behind.
package rigtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
)

// built is the directory of the programs; Main removes it.
var built string

// Main runs a package's tests, which may call Programs, and ends the process.
func Main(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built) // the system clears its temporary directory too
	}
	os.Exit(code)
}

// Programs returns the directory of badgerelay, badgeagent and apnssim, built once
// as the tests are built, so that both share what is compiled.
func Programs(t *testing.T) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var programs = sync.OnceValues(func() (_ string, err error) {
	if built, err = os.MkdirTemp("", "badge-bin-"); err != nil {
		return "", err
	}
	args := []string{"build"}
	if self, ok := debug.ReadBuildInfo(); ok && slices.Contains(self.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
		// Else the detector holds up the end of each program for a second; a rig runs dozens.
		if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
			return "", err
		}
	}
	args = append(args, "-o", built+"/", "badgerelay/cmd/badgerelay", "badgerelay/cmd/badgeagent", "badgerelay/cmd/apnssim")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w: %s", err, out)
	}
	return built, nil
})

// Clean has a test fail at its end if it has left a file in the temporary
// directory, or a process.
func Clean(t *testing.T) {
	t.Helper()
	Programs(t) // go build's own files are none of the test's
	temp := t.TempDir()
	if err := os.Chmod(filepath.Dir(temp), 0o711); err != nil { // PostgreSQL, which does not run as root, has to get through
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temp)
	t.Cleanup(func() {
		left, err := os.ReadDir(temp)
		if err != nil || len(left) > 0 {
			t.Errorf("%v is left in the temporary directory, %v", left, err)
		}
		if children := children(t); children != "" {
			t.Errorf("processes are left: %s", children)
		}
	})
}

// children are this process's that still run.
func children(t *testing.T) string {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(lists) == 0 {
		const missing = "this system does not list a process's children; Linux does"
		if os.Getenv("CI") != "" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	var all strings.Builder
	for _, list := range lists {
		data, _ := os.ReadFile(list) // a thread that has ended has none
		all.Write(data)
	}
	return strings.TrimSpace(all.String())
}
