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

// deviceToken is one as iPhones have.
var deviceToken = strings.Repeat("ab", 32)

// changing are the command lines that change something, in an order in which
// each has something to do, with what --dry-run says of them.
func changing(r *fakeRelay, export string) [][2]string {
	return [][2]string{
		{"cert ensure --organization fabrikam.com", "create a certificate for fabrikam.com and export it to "},
		{"cert export --file " + export, "export the certificate to " + export},
		{"auth-server set --metadata-url " + r.web + " --ca " + r.ca, "keep what https://"},
		{"proxy enable --organization fabrikam.com", "enable the push notification proxy for fabrikam.com, https://"},
		{"metadata --file " + export + ".json", "export the metadata document to " + export + ".json"},
		{"subscription add --mailbox ann@x --app mail --device-token " + deviceToken, "put the device on ann@x"},
		{"device set --mailbox bob@x --mailbox ann@x --app mail --device-token " + deviceToken, "put the device on bob@x; renew it on ann@x"},
		{"publish ann@x=7", "publish 1 count: ann@x=7"},
		{"subscription remove --mailbox ann@x --app mail --device-token " + deviceToken, "take the device off ann@x"},
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
		if args[0] == "cert" && args[1] == "stage" {
			r.enrol(filepath.Join(c.dir, exportNextName))
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
		dryRunOnNothing(t, c, args)
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

// dryRunOnNothing repeats a command that has nothing left to do, and whose exports are
// gone: they are not written.
func dryRunOnNothing(t *testing.T, c *console, args []string) {
	t.Helper()
	for _, name := range []string{exportName, exportNextName} {
		_ = os.Remove(filepath.Join(c.dir, name)) // it may not be there
	}
	before := snapshot(t, c.dir)
	c.ok(append(args, "--dry-run")...)
	if !maps.Equal(before, snapshot(t, c.dir)) {
		t.Errorf("%v --dry-run writes something", args)
	}
}

// TestDryRunRefusesWhatWouldBeRefused has the relay decide: what it refuses of a command
// it refuses of its dry run, in the same words.
func TestDryRunRefusesWhatWouldBeRefused(t *testing.T) {
	c, r := enrolled(t)
	device := func(app, token string, words ...string) []string {
		return append(words, "--app", app, "--device-token", token)
	}
	for _, args := range [][]string{
		device("nosuch", deviceToken, "subscription", "add", "--mailbox", "ann@x"), device("mail", "bad", "subscription", "add", "--mailbox", "ann@x"),
		device("nosuch", deviceToken, "device", "set", "--mailbox", "ann@x"),
	} {
		code, out, says := c.run(args...)
		dry, dryOut, drySays := c.run(append(args, "--dry-run")...)
		if code == command.Done || code != dry || out != dryOut || says != drySays {
			t.Errorf("%v\nexit code %d, %q, %q\n dry run %d, %q, %q", args, code, out, says, dry, dryOut, drySays)
		}
	}
	c.want(0, "Dry run: this would change nothing: the device is not on ann@x.\n", "", append(device("mail", deviceToken, "subscription", "remove", "--mailbox", "ann@x"), "--dry-run")...)
	r.disable()
	for _, args := range [][]string{
		device("mail", deviceToken, "subscription", "add", "--mailbox", "ann@x"), device("mail", deviceToken, "subscription", "remove", "--mailbox", "ann@x"),
		device("mail", deviceToken, "device", "set", "--none"), {"publish", "ann@x=1"},
	} {
		if code, out, stderr := c.run(append(args, "--dry-run")...); code != command.Failed || out != "" || !strings.Contains(stderr, "disabled") {
			t.Errorf("%v of a disabled organization: exit code %d, %q, %q", args, code, out, stderr)
		}
	}
}

// TestDryRunSaysWhatTheRelayWouldDo with what is there, for people and scripts.
func TestDryRunSaysWhatTheRelayWouldDo(t *testing.T) {
	c, _ := enrolled(t)
	device := []string{"--app", "mail", "--device-token", deviceToken, "--dry-run"}
	add := append([]string{"subscription", "add", "--mailbox", "bob@x"}, device...)
	set := append([]string{"device", "set", "--mailbox", "bob@x"}, device...)
	none := append([]string{"device", "set", "--none"}, device...)
	c.want(0, "Dry run: this would put the device on bob@x.\n", "", set...)
	c.want(0, "Dry run: this would change nothing: the device is on no mailbox.\n", "", none...)
	c.ok("subscription", "add", "--mailbox", "ann@x", "--app", "mail", "--device-token", deviceToken)
	c.want(0, "Dry run: this would put the device on bob@x, and take it off ann@x.\n", "", add...)
	c.want(0, "Dry run: this would put the device on bob@x; take it off ann@x.\n", "", set...)
	c.want(0, "Dry run: this would take the device off ann@x.\n", "", none...)
	c.want(0, "Dry run: this would renew the device's registration on ann@x.\n", "", append([]string{"subscription", "add", "--mailbox", "ann@x"}, device...)...)
	if out := c.ok(append(set, "--output", "json")...); !strings.Contains(out, `"added": [
      "bob@x"
    ],
    "removed": [
      "ann@x"
    ],
    "kept": []`) {
		t.Errorf("as JSON: %s", out)
	}
}

// TestStandardInputThatIsNone says why it can't be read.
func TestStandardInputThatIsNone(t *testing.T) {
	c, _ := enrolled(t)
	for input, want := range map[string]string{
		strings.Repeat("a", 1<<17): "badgeagent: read standard input: a line has more than 65536 bytes\n",
		"\xff\xfea\x00":            "badgeagent: standard input is text in UTF-16: save it as UTF-8\n",
	} {
		for _, args := range [][]string{{"publish"}, {"publish", "--dry-run"}} {
			if code, out, stderr := c.feed(input, args...); code == command.Done || out != "" || stderr != want {
				t.Errorf("%v of %.10q: exit code %d, %q, %q; want %q", args, input, code, out, stderr, want)
			}
		}
	}
	if code, out, stderr := c.feed("", "publish", "--dry-run"); code != command.Done || out != "Dry run: this would publish nothing.\n" || stderr != "warning: standard input was empty: nothing would be published\n" {
		t.Errorf("of nothing: exit code %d, %q, %q", code, out, stderr)
	}
	if code, out, stderr := c.feed("\xef\xbb\xbfann@x=7\r\n", "publish", "--dry-run"); code != command.Done || !strings.Contains(out, ": ann@x=7.") {
		t.Errorf("after a byte order mark: exit code %d, %q, %q", code, out, stderr)
	}
}

// TestDirectories are not files, and the other way round, before anything is written.
func TestDirectories(t *testing.T) {
	c, r := enrolled(t)
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, []byte("x"), 0o600))
	for want, args := range map[string][]string{
		"--dir " + file + " is not a directory":        {"cert", "show", "--dir", file},
		"--dir " + file + "/x is not a directory":      {"cert", "ensure", "--organization", "a.com", "--dir", file + "/x", "--dry-run"},
		"--file " + file + "/x can't be there":         {"cert", "export", "--file", file + "/x", "--dry-run"},
		"--file " + file + "/y can't be there":         {"metadata", "--file", file + "/y", "--dry-run"},
		"--file " + filepath.Dir(file) + " is a direc": {"cert", "ensure", "--organization", testRealm, "--file", filepath.Dir(file)},
	} {
		if code, out, stderr := c.run(args...); code != command.Misused || out != "" || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit code %d, %q, %q; want %q", args, code, out, stderr, want)
		}
	}
	code, out, stderr := c.run("auth-server", "set", "--metadata-url", r.web, "--system-ca", "--dry-run")
	if code != command.Unreachable || out != "" {
		t.Errorf("with the system's authorities: exit code %d, %q, %q", code, out, stderr)
	}
}
