package main

import (
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"
)

// TestDryRunsTryWhetherFilesCanBeWritten in a directory in which nobody makes anything,
// root included: a dry run fails as the command does.
func TestDryRunsTryWhetherFilesCanBeWritten(t *testing.T) {
	c, r := enrolled(t)
	there := "/proc/sys/badgeagent/x"
	for _, args := range [][]string{
		{"cert", "export", "--file", there}, {"metadata", "--file", there}, {"cert", "ensure", "--organization", testRealm, "--file", there},
		{"cert", "ensure", "--organization", "a.com", "--dir", there}, {"auth-server", "set", "--metadata-url", r.web, "--ca", r.ca, "--dir", there},
	} {
		code, out, stderr := c.run(append(args, "--dry-run")...)
		really, _, _ := c.run(args...)
		if code != command.Failed || really != code || strings.Contains(out, "would") || !strings.Contains(stderr, "can't be written") {
			t.Errorf("%v: exit code %d, really %d, %q, %q", args, code, really, out, stderr)
		}
	}
}
