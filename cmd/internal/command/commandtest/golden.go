// Package commandtest keeps what the programs' command lines show, all of them
// in one directory, so that one that drifts from the others is seen in a diff.
package commandtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Run executes one command line; out is standard output and error as they come.
type Run func(args ...string) (code int, out string)

// From the directory of a program: testdata beside this file, and the pages for
// readers.
const (
	directory = "../internal/command/commandtest/testdata"
	pages     = "../../deploy/commands"
)

// Help compares the help of every command of a program with the page of it in
// deploy/commands, which "make reference" writes.
func Help(t *testing.T, root *cobra.Command, run Run) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\nWhat `%s --help` and its commands say; written by `make reference`.\n", root.Name(), root.Name())
	for _, path := range Paths(root) {
		code, out := run(append(path, "--help")...)
		if code != 0 {
			t.Errorf("%v --help: exit code %d", path, code)
		}
		fmt.Fprintf(&b, "\n## %s\n\n```text\n%s\n```\n", strings.Join(append([]string{root.Name()}, path...), " "), strings.TrimSpace(out))
	}
	compare(t, filepath.Join(pages, root.Name()+".md"), b.String())
}

// Mistakes compares what a program says of mistakes with what is kept: those that
// can be made with every command, and more of its own. Each has exit code 2.
func Mistakes(t *testing.T, root *cobra.Command, run Run, more ...string) {
	t.Helper()
	lines := []string{"bogus", "--bogus", "--outptu json", "help bogus", "completion tcsh", "version extra", "version -o yaml", "version -o json -o text", "version --output"}
	for _, path := range Paths(root) {
		c, _, err := root.Find(path)
		if err != nil {
			t.Fatal(err)
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) { plainTypes(t, c, f) })
		at := strings.Join(path, " ")
		if c.HasSubCommands() && len(path) > 0 {
			first := c.Commands()[0].Name()
			lines = append(lines, at, at+" "+first[:len(first)-1]+"x", at+" delete x", at+" --bogus")
			continue
		}
		if len(path) > 0 && !strings.Contains(c.Use, "...") {
			lines = append(lines, at+" one two three")
		}
	}
	var b strings.Builder
	for _, line := range append(lines, more...) {
		if code := show(t, &b, run, strings.Fields(line)...); code != 2 {
			t.Errorf("%s %s: exit code %d, want 2", root.Name(), line, code)
		}
	}
	compare(t, filepath.Join(directory, root.Name()+".mistakes.txt"), b.String())
}

// Output compares what command lines print with what is kept. Each is words that
// strings.Fields parts; blur replaces what differs from run to run.
func Output(t *testing.T, program string, run Run, blur func(string) string, lines ...string) {
	t.Helper()
	var b strings.Builder
	for _, line := range lines {
		code, out := run(strings.Fields(line)...)
		if strings.Contains(out, "INTERNAL") { // a defect is not to be kept as what is expected
			t.Errorf("%s %s = %d, %s", program, line, code, out)
		}
		fmt.Fprintf(&b, "$ %s %s\n%s[%d]\n\n", program, line, out, code)
	}
	compare(t, filepath.Join(directory, program+".output.txt"), blur(b.String()))
}

// Paths are the words of every command of a program, its own first.
func Paths(root *cobra.Command) [][]string {
	all := [][]string{{}}
	var walk func(c *cobra.Command, path []string)
	walk = func(c *cobra.Command, path []string) {
		for _, child := range c.Commands() {
			if child.Hidden || child.Name() == "help" || child.Name() == "completion" {
				continue
			}
			own := append(append([]string{}, path...), child.Name())
			all = append(all, own)
			walk(child, own)
		}
	}
	walk(root, nil)
	return all
}

// plainTypes refuses flags whose numbers and times pflag reads: 010 is 8 to it, and its
// errors speak of strconv.
func plainTypes(t *testing.T, c *cobra.Command, f *pflag.Flag) {
	t.Helper()
	switch kind := fmt.Sprintf("%T", f.Value); kind {
	case "*pflag.stringValue", "*pflag.boolValue", "*pflag.stringSliceValue", "*pflag.stringArrayValue", "*pflag.intSliceValue":
	default:
		if strings.HasPrefix(kind, "*pflag.") {
			t.Errorf("%s --%s is a %s; command.Count, Number and Duration say what they take", c.CommandPath(), f.Name, kind)
		}
	}
}

func show(t *testing.T, b *strings.Builder, run Run, args ...string) int {
	t.Helper()
	code, out := run(args...)
	fmt.Fprintf(b, "$ %s\n%s[%d]\n\n", strings.Join(args, " "), out, code)
	return code
}

// built is what the build and the machine say.
var built = regexp.MustCompile(`(badgerelay|badgeagent|apnssim|badgebench) \S+ \w+/\w+ go\S+`)

// compare compares text with a file, or writes that where GOLDEN=update, as make reference has it.
func compare(t *testing.T, file, text string) {
	t.Helper()
	text = built.ReplaceAllString(text, "$1 VERSION")
	if os.Getenv("GOLDEN") == "update" {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; make reference writes it", err)
	}
	Same(t, file, string(kept), text)
}

// Same fails the test at the first line of text that differs from what page has kept.
func Same(t *testing.T, page, kept, text string) {
	t.Helper()
	want, got := strings.Split(kept, "\n"), strings.Split(text, "\n")
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			t.Fatalf("%s line %d is\n%s\nwant\n%s\nLook at the difference, and if it is meant: make reference",
				page, i+1, at(got, i), at(want, i))
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}
