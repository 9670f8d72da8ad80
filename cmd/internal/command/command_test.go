package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// tree is a program with what the others have of each kind.
type tree struct {
	*Terminal
	out, err bytes.Buffer
	full     bool // of what goes to out, nothing is taken
	limit    int
	organize string
	timeout  time.Duration
	rate     float64
	apps     []string
}

func (tr *tree) run(t *testing.T, environment map[string]string, args ...string) int {
	t.Helper()
	tr.out.Reset()
	tr.err.Reset()
	out := io.Writer(&tr.out)
	if tr.full {
		out = fullDisk{}
	}
	tr.Terminal = &Terminal{In: strings.NewReader(""), Out: out, Err: &tr.err, Version: "1.0", Getenv: func(n string) string { return environment[n] }}
	root := &cobra.Command{Use: "prog"}
	list := &cobra.Command{Use: "list [thing]", RunE: func(*cobra.Command, []string) error {
		return tr.Print(map[string]any{"organization": tr.organize, "limit": tr.limit}, func() { tr.Say("%s %d", tr.organize, tr.limit) })
	}}
	list.Flags().StringVar(&tr.organize, "organization", "", "the `domain`")
	Count(list.Flags(), &tr.limit, "limit", 0, 100, 10, "at most")
	Duration(list.Flags(), &tr.timeout, "timeout", time.Second, 0, "give up")
	Number(list.Flags(), &tr.rate, "rate", 0.001, 1000, 2, "events a second")
	list.Flags().IntSlice("sizes", nil, "how many")
	list.Flags().Bool("dry-run", false, "do nothing")
	list.Flags().StringSliceVar(&tr.apps, "apps", nil, "the apps")
	Environment(list.Flags(), "organization", "timeout")
	enrol := &cobra.Command{Use: "enrol", Hidden: true, RunE: func(*cobra.Command, []string) error { return nil }}
	enrol.Flags().String("domain", "", "the domain")
	Require(enrol, "domain")
	group := &cobra.Command{Use: "things"}
	group.AddCommand(tr.OutputFlag(list), &cobra.Command{Use: "remove <thing>", RunE: func(_ *cobra.Command, args []string) error {
		return errors.New("line one: " + args[0] + "\nline two")
	}, SuggestFor: []string{"forget"}}, enrol)
	root.AddCommand(group, tr.VersionCommand())
	return Run(t.Context(), root, tr.Terminal, args)
}

// fullDisk takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestALostResultIsNoSuccess has every way to print meet a full disk.
func TestALostResultIsNoSuccess(t *testing.T) {
	tr := tree{full: true}
	for _, args := range [][]string{
		{"things", "list"}, {"things", "list", "-o", "json"}, {"things", "list", "--help"}, {"version"}, {"version", "-o", "json"}, {"--version"}, {"help"}, {},
	} {
		code := tr.run(t, nil, args...)
		if want := "prog: print the result: no space left on device\n"; code != Failed || !strings.HasSuffix(tr.err.String(), want) {
			t.Errorf("%v: %d %q, want %q", args, code, &tr.err, want)
		}
	}
	if tr.run(t, nil, "--version"); strings.Contains(tr.err.String(), "--help") {
		t.Errorf("help is named where a version was lost: %q", &tr.err)
	}
	if code := tr.run(t, nil, "things", "remove", "a"); code != Failed || strings.Contains(tr.err.String(), "print") {
		t.Errorf("nothing was to be printed: %d %q", code, &tr.err)
	}
}

// TestWhatCobraRefusesIsMisuse gives an argument to a command of cobra's own.
func TestWhatCobraRefusesIsMisuse(t *testing.T) {
	var tr tree
	if code := tr.run(t, nil, "completion", "bash", "extra"); code != Misused || !strings.HasSuffix(tr.err.String(), "See 'prog completion bash --help'.\n") {
		t.Errorf("%d %q", code, &tr.err)
	}
}

func TestEnvironmentStandsForFlags(t *testing.T) {
	var tr tree
	in := map[string]string{"PROG_ORGANIZATION": "a.com", "PROG_OUTPUT": "json"}
	if code := tr.run(t, in, "things", "list"); code != Done || !json.Valid(tr.out.Bytes()) || !strings.Contains(tr.out.String(), "a.com") {
		t.Errorf("from the environment: %d %q %q", code, &tr.out, &tr.err)
	}
	if code := tr.run(t, in, "things", "list", "--organization", "b.com", "-o", "text"); code != Done || tr.out.String() != "b.com 10\n" {
		t.Errorf("the flag wins: %d %q %q", code, &tr.out, &tr.err)
	}
	in["PROG_TIMEOUT"] = "soon"
	code := tr.run(t, in, "things", "list")
	if want := "prog: $PROG_TIMEOUT is \"soon\": it is a time such as 30s, 5m or 1h30m\nSee 'prog things list --help'.\n"; code != Misused || tr.err.String() != want {
		t.Errorf("a bad variable: %d %q, want %q", code, &tr.err, want)
	}
	tr.run(t, nil, "things", "list", "--help")
	for _, want := range []string{"[$PROG_ORGANIZATION]", "[$PROG_TIMEOUT]", "[$PROG_OUTPUT]"} {
		if !strings.Contains(tr.out.String(), want) {
			t.Errorf("help does not show %s:\n%s", want, &tr.out)
		}
	}
}

// TestEmptyFlags refuses a flag whose value is an unset shell variable: it is not the
// same as no flag.
func TestEmptyFlags(t *testing.T) {
	var tr tree
	for flag, want := range map[string]string{
		"--organization=": "prog: --organization is empty; is a shell variable not set?\n",
		"--apps=":         "prog: --apps is empty; ",
		"--apps=a,":       "prog: --apps is empty; ",
	} {
		if code := tr.run(t, nil, "things", "list", flag); code != Misused || !strings.Contains(tr.err.String(), want) || tr.out.Len() > 0 {
			t.Errorf("%s: %d %q, want %q", flag, code, &tr.err, want)
		}
	}
	if code := tr.run(t, nil, "things", "remove", ""); code != Misused || !strings.Contains(tr.err.String(), "things remove: <thing> is empty; is a shell variable not set?") {
		t.Errorf("an empty argument: %d %q", code, &tr.err)
	}
	in := map[string]string{"PROG_ORGANIZATION": ""}
	if code := tr.run(t, in, "things", "list"); code != Done || tr.err.Len() > 0 {
		t.Errorf("an empty variable: %d %q", code, &tr.err)
	}
}

// TestListsCollect what a flag is given several times; a flag wins over its variable still.
func TestListsCollect(t *testing.T) {
	var tr tree
	in := map[string]string{"PROG_ORGANIZATION": "a.com"}
	if code := tr.run(t, in, "things", "list", "--apps", "a", "--apps", "b", "--organization", "b.com"); code != Done || len(tr.apps) != 2 || tr.organize != "b.com" {
		t.Errorf("%d %q: %v, %s", code, &tr.err, tr.apps, tr.organize)
	}
}

// TestErrorsCannotMoveTheCursor prints errors line by line, each after the
// program's name, with control characters written out.
func TestErrorsCannotMoveTheCursor(t *testing.T) {
	var tr tree
	code := tr.run(t, nil, "things", "remove", "\x1b[2Jann\u202e\x9b")
	if want := "prog: line one: \\x1b[2Jann\\u202e\\x9b\nprog: line two\n"; code != Failed || tr.err.String() != want {
		t.Errorf("%d %q, want %q", code, &tr.err, want)
	}
}

// TestAttemptsAreSaidOnce has pgx tell of two equal attempts, each after a tab.
func TestAttemptsAreSaidOnce(t *testing.T) {
	var tr tree
	tr.run(t, nil, "things", "remove", "connect:\n\t127.0.0.1:9: refused\n\t127.0.0.1:9: refused")
	if want := "prog: line one: connect:\nprog:   127.0.0.1:9: refused\nprog: line two\n"; tr.err.String() != want {
		t.Errorf("%q, want %q", &tr.err, want)
	}
}

// TestDialingIsNotSaid of what the system says of an address.
func TestDialingIsNotSaid(t *testing.T) {
	var tr tree
	tr.run(t, nil, "things", "remove", `unreached: connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused" (x)`)
	if want := "prog: line one: unreached: dial tcp 127.0.0.1:1: connect: connection refused (x)\n"; !strings.HasPrefix(tr.err.String(), want) {
		t.Errorf("%q, want %q", &tr.err, want)
	}
	tr.err.Reset()
	tr.Warn("%v", errors.New(`connection error: desc = "transport: Error while dialing: dial tcp: lookup x"`))
	if want := "warning: dial tcp: lookup x\n"; tr.err.String() != want {
		t.Errorf("%q, want %q", &tr.err, want)
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"ann@fabrikam.com":          "ann@fabrikam.com",
		"Jürgen 한국":                 "Jürgen 한국",
		`DOMAIN\ann`:                `DOMAIN\ann`,
		"\x1b]0;title\x07":          `\x1b]0;title\a`,
		"a\nb\tc\x7f":               `a\nb\tc\x7f`,
		"\u009b31m":                 `\u009b31m`,
		"\u202eevil\u2066":          `\u202eevil\u2066`,
		"half \xe2\x82":             `half \xe2\x82`,
		"tag \U000e0041 \ufeffx":    `tag \U000e0041 \ufeffx`,
		"no-break\u00a0space\u200b": `no-break\u00a0space\u200b`,
	} {
		if got := Escape(in); got != want {
			t.Errorf("Escape(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzEscape makes everything printable, and JSON that means the same.
func FuzzEscape(f *testing.F) {
	f.Add("\x1b[31m\u009b\U000e0041")
	f.Fuzz(func(t *testing.T, s string) {
		if got := Escape(s); !printable(got) || printable(s) && got != s {
			t.Errorf("Escape(%q) = %q", s, got)
		}
		var out bytes.Buffer
		terminal := &Terminal{Out: &out}
		if err := terminal.Line(s); err != nil {
			t.Fatal(err)
		}
		var back string
		if err := json.Unmarshal(out.Bytes(), &back); err != nil || back != strings.ToValidUTF8(s, "\ufffd") && s == strings.ToValidUTF8(s, "") {
			t.Errorf("JSON of %q is %q: %q, %v", s, &out, back, err)
		}
		if !printable(strings.TrimSuffix(out.String(), "\n")) {
			t.Errorf("JSON of %q is %q", s, &out)
		}
	})
}

func TestTablesAndListsAreEscaped(t *testing.T) {
	var out bytes.Buffer
	terminal := &Terminal{Out: &out, Err: &out}
	terminal.Table("A B", [][]string{{"\x1b[1m", "x\ny"}})
	terminal.List(Field{"Subject", "CN=\x1b[1m"})
	terminal.Say("%s %v", "\x07", errors.New("\x1b"))
	terminal.Warn("%s", "\r")
	terminal.AddStage(new(Probe), Stage{Name: "\x1b", Detail: "\x1b"}, "")
	if strings.ContainsAny(out.String(), "\x1b\x07\r") || strings.Count(out.String(), "\n") != 6 {
		t.Errorf("printed %q", &out)
	}
	out.Reset()
	terminal.Table("A B", [][]string{{"ann@fabrikam.com ", "x"}})
	terminal.List(Field{"Mailbox", " ann"}, Field{"None", ""})
	if want := "A                    B\n\"ann@fabrikam.com \"  x\nMailbox : \" ann\"\nNone    :\n"; out.String() != want {
		t.Errorf("outer spaces: %q, want %q", &out, want)
	}
}

func TestSuggestions(t *testing.T) {
	var tr tree
	for line, want := range map[string]string{
		"thinsg list":                                   `unknown command "thinsg" for "prog"; did you mean "things"?`,
		"things delete x":                               `did you mean "remove"?`,
		"-- things list":                                `"things" comes after --, where no command can be`,
		"things frobnicate":                             `unknown command "frobnicate" for "prog things"; there are list, remove`,
		"things":                                        "things needs one of its commands: list, remove",
		"things remove":                                 "things remove needs <thing>",
		"remove x":                                      `unknown command "remove" for "prog"; did you mean "things remove"?`,
		"forget x":                                      `unknown command "forget" for "prog"; did you mean "things remove"?`,
		"things remove --thing x":                       "unknown flag: --thing; things remove takes it as its argument <thing>",
		"things enrol a.com":                            `things enrol takes no argument, and got "a.com"; give it with --domain`,
		"things enrol --domain a.com b":                 `things enrol takes no argument, and got "b"` + "\n",
		"things list -apps a":                           "unknown shorthand flag: 'a' in -apps; did you mean --apps?",
		"things list -limt=5":                           "unknown shorthand flag: 'l' in -limt=5; did you mean --limit?",
		"things list -output json":                      `-output is -o with "utput"; write --output`,
		"things list \u2014limit 5":                     `"—limit" begins with a dash, —, and no hyphen; write --limit`,
		"\u2013-version":                                `"–-version" begins with a dash, –, and no hyphen; write --version`,
		"things list a b":                               `things list takes [thing], and got "b" beyond that`,
		"things list --organisation x":                  "unknown flag: --organisation; did you mean --organization?",
		"things list --limit -3":                        "it is a whole number from 0 to 100",
		"things list --limit 1e3":                       "it is a whole number from 0 to 100",
		"things list --limit 0x10":                      "it is a whole number from 0 to 100",
		"things list --limit 1_0":                       "it is a whole number from 0 to 100",
		"things list --limit ١":                         "it is a whole number from 0 to 100",
		"things list --limit +5":                        "it is a whole number from 0 to 100",
		"things list --rate 1e3":                        "it is a number from 0.001 to 1000, such as 300 or 0.5",
		"things list --rate NaN":                        "it is a number from 0.001 to 1000, such as 300 or 0.5",
		"things list --rate 0":                          "it is a number from 0.001 to 1000, such as 300 or 0.5",
		"things list --rate 0x1p4":                      "it is a number from 0.001 to 1000, such as 300 or 0.5",
		"things list --rate -1":                         "it is a number from 0.001 to 1000, such as 300 or 0.5",
		"things list --rate .5":                         "it is a number from 0.001 to 1000, such as 300 or 0.5",
		"things list --rate ١":                          "it is a number from 0.001 to 1000, such as 300 or 0.5",
		"things list --sizes 1e3":                       "it is whole numbers, joined by commas",
		"things list --timeout 5":                       "it is a time such as 30s, 5m or 1h30m",
		"things list --timeout -5s":                     "it can't be negative",
		"things list --timeout 1ms":                     "it is a time of at least 1s",
		"things list --timeout 99999999h":               "it is too long: the most is 2562047h",
		"things list --limit 1 --limit 2":               "--limit is given twice: it takes one value",
		"things list --organization a --organization=a": "--organization is given twice",
		"things list -o json --output text":             "--output is given twice",
		"things list --dry-run --dry-run":               "--dry-run is given twice",
		"things list --dry-run=maybe":                   `--dry-run is "maybe": it is true or false`,
		"help things list x":                            `unknown command "x" for "prog things list", which has no commands below it`,
		"version -o yaml":                               "it is text or json",
		"help thinsg":                                   `did you mean "things"?`,
	} {
		if code := tr.run(t, nil, strings.Fields(line)...); code != Misused || !strings.Contains(tr.err.String(), want) || tr.out.Len() > 0 {
			t.Errorf("%s: %d %q, want %q", line, code, &tr.err, want)
		}
	}
}

func TestNearestMailbox(t *testing.T) {
	known := []string{"ann@contoso.com", "ann@fabrikam.com", "bob@fabrikam.com"}
	for named, want := range map[string]string{
		"Ann@fabrikam.com": "ann@fabrikam.com", "ann": "ann@contoso.com", "bbo@fabrikam.com": "bob@fabrikam.com",
		"zoe": "", "zoe@elsewhere.com": "",
	} {
		if got := NearestMailbox(named, known); got != want {
			t.Errorf("%s: %q, want %q", named, got, want)
		}
	}
}
