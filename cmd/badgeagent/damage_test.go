package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"
)

// TestDamagedStateIsNamed, and what to do about it.
func TestDamagedStateIsNamed(t *testing.T) {
	c, _ := enrolled(t)
	keys, err := filepath.Glob(filepath.Join(c.dir, "certificates", "*.key"))
	must(t, err)
	key, err := filepath.Rel(c.dir, keys[0])
	must(t, err)
	const anew = "; restore it from a backup with the rest of DIR/certificates; without one, move that directory away, run 'badgeagent cert ensure"
	for _, test := range []struct{ file, content, show, want string }{
		{"proxy.json", "{\"organization\": \"fab\n", "proxy show", "; restore it from a backup, or delete it and run 'badgeagent proxy enable --organization ...'"},
		{"auth-server.json", "", "auth-server show", "; restore it from a backup, or delete it and run 'badgeagent auth-server set --metadata-url https://...'"},
		{"certificates/state.json", "", "cert show", anew},
		{"certificates/state.json", "", "cert stage", anew},
		{"certificates/state.json", "", "cert ensure --organization fabrikam.com", anew},
		{key, "-----BEGIN PRIVATE KEY-----\nMII", "cert show", anew},
		{strings.TrimSuffix(key, ".key") + ".cer", "", "cert show", anew},
		{key, missing, "cert show", anew},
		{key, missing, "cert ensure --organization fabrikam.com", anew},
		{key, ofOther(t, "*.key"), "cert show", anew},
		{strings.TrimSuffix(key, ".key") + ".cer", missing, "cert show", anew},
		{strings.TrimSuffix(key, ".key") + ".cer", ofOther(t, "*.cer"), "cert show", anew},
	} {
		path := filepath.Join(c.dir, test.file)
		kept, err := os.ReadFile(path)
		must(t, err)
		must(t, os.Remove(path))
		if test.content != missing {
			must(t, os.WriteFile(path, []byte(test.content), 0o600))
		}
		for _, args := range [][]string{strings.Fields(test.show), {"publish", "ann=1"}} {
			code, _, stderr := c.run(args...)
			if got := strings.ReplaceAll(stderr, c.dir, "DIR"); code == command.Done || !strings.Contains(got, "badgeagent: DIR/"+test.file+" is damaged: ") || !strings.Contains(got, test.want) {
				t.Errorf("%v: exit code %d, %q, want %s named, and %q", args, code, got, test.file, test.want)
			}
		}
		must(t, os.WriteFile(path, kept, 0o600))
	}
}

// missing is the content of a file that is not there.
const missing = "missing"

// ofOther is what another agent's directory has for a kind of file.
func ofOther(t *testing.T, pattern string) string {
	t.Helper()
	c := newConsole(t)
	c.ok("cert", "ensure", "--organization", "fabrikam.com")
	files, err := filepath.Glob(filepath.Join(c.dir, "certificates", pattern))
	must(t, err)
	content, err := os.ReadFile(files[0])
	must(t, err)
	return string(content)
}
