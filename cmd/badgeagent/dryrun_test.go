package main

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"

	"github.com/spf13/cobra"
)

// snapshot is every file below dir with its content.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = string(data)
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return files
}

// changing are the command lines that change something, in an order in which
// each has something to do, with what --dry-run says of them.
func changing(r *fakeRelay, export string) [][2]string {
	return [][2]string{
		{"cert ensure --organization fabrikam.com", "create a certificate for fabrikam.com and export it to "},
		{"cert export --file " + export, "export the certificate to " + export},
		{"auth-server set --metadata-url " + r.web + " --ca " + r.ca, "keep what https://"},
		{"proxy enable --organization fabrikam.com", "enable the push notification proxy for fabrikam.com, https://"},
		{"metadata --file " + export + ".json", "export the metadata document to " + export + ".json"},
		{"subscription add --mailbox ann@x --app mail --device-token ab", "put the device on ann@x"},
		{"publish ann@x=7", "publish 1 counts: ann@x=7"},
		{"subscription remove --mailbox ann@x --app mail --device-token ab", "take the device off ann@x"},
		{"cert stage --effective 2099-01-01T00:00:00Z", "stage a next certificate, effective from 2099-"},
		{"cert stage --effective 2098-01-01T00:00:00Z", "stage a next certificate, effective from 2098-"},
		{"cert stage --replace", "stage a next certificate, effective from "},
		{"cert publish --force", " the current certificate"},
		{"cert retire --force", "delete the previous certificate, "},
		{"proxy disable", "disable the push notification proxy for fabrikam.com"},
	}
}

// TestEveryChangeIsAnnouncedAndRepeatable runs each command with --dry-run,
// which changes nothing, then for real, which does, and then again, which
// changes nothing any more.
func TestEveryChangeIsAnnouncedAndRepeatable(t *testing.T) {
	r, c := newFakeRelay(t), newConsole(t)
	export := filepath.Join(t.TempDir(), "export.cer")
	state := func() map[string]string {
		all := snapshot(t, c.dir)
		maps.Copy(all, snapshot(t, filepath.Dir(export)))
		r.mu.Lock()
		defer r.mu.Unlock()
		for mailbox, device := range r.devices {
			all["device on "+mailbox] = device
		}
		return all
	}
	for _, line := range changing(r, export) {
		args := strings.Fields(line[0])
		before := state()
		if out := c.ok(append(args, "--dry-run")...); !strings.Contains(out, "Dry run: this would ") || !strings.Contains(out, line[1]) {
			t.Errorf("%s --dry-run prints %q, want %q in it", line[0], out, line[1])
		}
		if !maps.Equal(before, state()) {
			t.Errorf("%s --dry-run changed something", line[0])
		}
		c.ok(args...)
		if args[0] == "cert" && args[1] == "ensure" {
			r.enrol(filepath.Join(c.dir, exportName))
		}
		if args[0] == "cert" && args[1] == "publish" {
			r.enrol(filepath.Join(c.dir, exportName))
		}
		after := state()
		if maps.Equal(before, after) != (args[0] == "publish") {
			t.Errorf("%s: changed %v", line[0], !maps.Equal(before, after))
		}
		if slices.Contains(args, "--replace") {
			continue // asks for another one each time
		}
		c.ok(args...)
		if !maps.Equal(after, state()) {
			t.Errorf("%s changed something the second time", line[0])
		}
	}
}

// TestEveryChangeHasDryRun goes through all commands, so that a new one can't
// be forgotten.
func TestEveryChangeHasDryRun(t *testing.T) {
	reads := []string{"show", "explain", "list", "token", "probe", "version", "man", "completion", "help", "serve", "check", "example"}
	a := &app{Terminal: &command.Terminal{}}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		if cmd.HasSubCommands() || slices.Contains(reads, cmd.Name()) || cmd.Parent().Name() == "completion" {
			return
		}
		if cmd.Flags().Lookup("dry-run") == nil {
			t.Errorf("%s changes something, and has no --dry-run", cmd.CommandPath())
		}
	}
	walk(a.root())
}
