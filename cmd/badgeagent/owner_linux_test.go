package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"badgerelay/cmd/internal/command"
)

const nobody = 65534 // a user who is not root

// TestAnotherUserIsToldSo has somebody look who may not: nothing is missing.
func TestAnotherUserIsToldSo(t *testing.T) {
	c, _ := enrolled(t)
	if os.Geteuid() == 0 {
		runtime.LockOSThread() // for good: the thread ends with the test
		must(t, syscall.Setfsuid(nobody))
		defer syscall.Setfsuid(0) //nolint:errcheck // it was
	} else {
		must(t, os.Chmod(c.dir, 0))
		defer os.Chmod(c.dir, 0o700) //nolint:errcheck,gosec // it was
	}
	for _, line := range []string{"cert show", "cert stage", "cert ensure --organization fabrikam.com", "auth-server show", "proxy show", "publish ann=1", "metadata"} {
		code, out, stderr := c.run(strings.Fields(line)...)
		if code == command.Done || out != "" || !strings.Contains(stderr, "permission denied; run this as root or as the agent's user") || strings.Contains(stderr, "there is no") {
			t.Errorf("%s: exit code %d, %q, %q", line, code, out, stderr)
		}
	}
}

// TestRootLeavesFilesToTheAgentsUser has root set up and roll over in a directory that is
// another's.
func TestRootLeavesFilesToTheAgentsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, who alone can give files away")
	}
	c, r := newConsole(t), newFakeRelay(t)
	must(t, os.Mkdir(c.dir, 0o700))
	must(t, os.Chown(c.dir, nobody, nobody))
	c.ok("cert", "ensure", "--organization", testRealm)
	r.enrol(filepath.Join(c.dir, exportName))
	c.ok("auth-server", "set", "--metadata-url", r.web, "--ca", r.ca)
	c.ok("proxy", "enable", "--organization", testRealm)
	c.ok("cert", "stage")
	r.enrol(filepath.Join(c.dir, exportNextName))
	c.ok("cert", "publish", "--force")
	must(t, filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		must(t, err)
		info, err := d.Info()
		must(t, err)
		if s := info.Sys().(*syscall.Stat_t); s.Uid != nobody || s.Gid != nobody {
			t.Errorf("%s is %d:%d's, want the directory's owner's", path, s.Uid, s.Gid)
		}
		return nil
	}))
}
