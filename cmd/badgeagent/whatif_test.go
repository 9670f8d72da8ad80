package main

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
// each has something to do, with what --what-if says of them.
func changing(r *fakeRelay, export string) [][2]string {
	return [][2]string{
		{"cert ensure --domain fabrikam.com", `"New-ExchangeCertificate" on target "fabrikam.com"`},
		{"cert export --file " + export, `"Export-ExchangeCertificate" on target "` + export + `"`},
		{"auth-server set --metadata-url " + r.web + " --ca " + r.ca, `"New-AuthServer"`},
		{"proxy enable --organization fabrikam.com", `"Enable-PushNotificationProxy"`},
		{"metadata --file " + export + ".json", `"Export metadata document"`},
		{"subscribe ann --app mail --device-token ab", `"Subscribe" on target "ann"`},
		{"publish ann=7", `"Publish" on target "ann=7"`},
		{"unsubscribe ann --app mail --device-token ab", `"Unsubscribe" on target "ann"`},
		{"cert stage --effective 2099-01-01T00:00:00Z", `"Set-AuthConfig -NewCertificateEffectiveDate"`},
		{"cert stage --effective 2098-01-01T00:00:00Z", `"Set-AuthConfig -NewCertificateEffectiveDate"`},
		{"cert stage --replace", `"Set-AuthConfig -NewCertificateEffectiveDate"`},
		{"cert publish --force", `"Set-AuthConfig -PublishCertificate"`},
		{"cert retire --force", `"Set-AuthConfig -ClearPreviousCertificate"`},
		{"proxy disable", `"Disable-PushNotificationProxy"`},
	}
}

// TestEveryChangeIsAnnouncedAndRepeatable runs each command with --what-if,
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
	for _, command := range changing(r, export) {
		args := strings.Fields(command[0])
		before := state()
		if out := c.ok(append(args, "--what-if")...); !strings.Contains(out, "What if: Performing the operation "+command[1]) {
			t.Errorf("%s --what-if prints %q, want %q in it", command[0], out, command[1])
		}
		if !maps.Equal(before, state()) {
			t.Errorf("%s --what-if changed something", command[0])
		}
		c.ok(args...)
		if args[0] == "proxy" && args[1] == "enable" {
			r.enrol(filepath.Join(c.dir, exportName))
		}
		if args[0] == "cert" && args[1] == "publish" {
			r.enrol(filepath.Join(c.dir, exportName))
		}
		after := state()
		if maps.Equal(before, after) != (args[0] == "publish") {
			t.Errorf("%s: changed %v", command[0], !maps.Equal(before, after))
		}
		if slices.Contains(args, "--replace") {
			continue // asks for another one each time
		}
		c.ok(args...)
		if !maps.Equal(after, state()) {
			t.Errorf("%s changed something the second time", command[0])
		}
	}
}

// TestEveryChangeHasWhatIf goes through all commands, so that a new one can't
// be forgotten.
func TestEveryChangeHasWhatIf(t *testing.T) {
	reads := []string{"show", "subscriptions", "probe", "version", "completion", "help", "run", "check", "example"}
	a := &app{}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		if cmd.HasSubCommands() || slices.Contains(reads, cmd.Name()) || cmd.Parent().Name() == "completion" {
			return
		}
		if cmd.Flags().Lookup("what-if") == nil {
			t.Errorf("%s changes something, and has no --what-if", cmd.CommandPath())
		}
	}
	walk(a.root())
}
