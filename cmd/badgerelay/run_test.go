package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"badgerelay/auth/authtest"
	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/command"
)

func TestHelpTeaches(t *testing.T) {
	out := want(t, command.Done, "Exit codes: 0 done; 1 failed or refused; 2 wrong usage or configuration;")
	for _, word := range []string{"serve", "demo", "config", "organization", "credential", "subscription", "app", "status", "probe", "version", "completion"} {
		if !strings.Contains(out, "\n  "+word) {
			t.Errorf("help does not show the command %s", word)
		}
	}
}

func TestWrongUsageIsExitCode2(t *testing.T) {
	for _, args := range [][]string{
		{"flag"}, {"serve", "--bogus"}, {"serve", "extra"}, {"organization", "show"}, {"organization", "add", "a", "b"},
		{"credential", "list"}, {"subscription", "add", "--organization", "x.com"}, {"status", "--output", "xml", "--admin", "/x"},
		{"demo", "--check", "1ms"}, {"subscription", "import", "--organization", "x.com", "/nowhere", "--admin", "/x"},
		{"organization", "remove", "--yes", "--admin", "/x"}, {"config", "check", "/nowhere"}, {"serve", "--config", "/nowhere"},
		{"status", "--admin", "10.0.0.1:1"}, {"credential", "add", "--organization", "a.com", "--certificate", "/nowhere", "--admin", "/x"},
	} {
		if code, out := execute(t, args...); code != command.Misused || !strings.Contains(out, "badgerelay: ") {
			t.Errorf("badgerelay %v = %d, %q; want %d", args, code, out, command.Misused)
		}
	}
}

// TestAClockThatIsWrongIsExitCode1 starts with a certificate that has expired by
// the clock: a service manager has to start the relay again, as it does not after
// code 2.
func TestAClockThatIsWrongIsExitCode1(t *testing.T) {
	f := newFiles(t)
	certificate, key := f.path("old.crt"), f.path("old.key")
	if err := authtest.NewServer("old", time.Now().Add(-time.Hour), "localhost").Write(certificate, key); err != nil {
		t.Fatal(err)
	}
	more := "listen: {address: \"127.0.0.1:0\", tls: {certificate_file: " + certificate + ", key_file: " + key + "}}\n"
	want(t, command.Failed, "the certificate expired on", "serve", "--config", f.base(t, more))
	want(t, command.Misused, "the certificate expired on", "config", "check", f.base(t, more))
	want(t, command.Misused, "nonsense", "serve", "--config", f.base(t, more+"nonsense: 1\n"))
}

// TestWrongUsageSaysWhatIsRight makes slips that are easily made.
func TestWrongUsageSaysWhatIsRight(t *testing.T) {
	want(t, command.Misused, "there is no file nowhere.yaml; the command 'config example' prints one to begin with", "config", "check", "nowhere.yaml")
	want(t, command.Misused, `got "badgerelay.yaml"; name a configuration with --config`, "serve", "badgerelay.yaml")
	want(t, command.Misused, `give an organization and a mailbox, and got "fabrikam.com" alone`, "mailbox", "show", "fabrikam.com", "--admin", "/x")
	want(t, command.Misused, `--page: the port "99999" is not a number`, "demo", "--page", "localhost:99999")
	want(t, command.Misused, `--ops: "33793" is not host:port`, "demo", "--ops", "33793")
}

func TestNoRelayIsExitCode3(t *testing.T) {
	want(t, command.Unreachable, "start the relay (if you have, its log says why it ended), or name its admin listener with --admin", "status", "--admin", t.TempDir()+"/none.sock")
}

func TestConfigExampleIsWhatCheckAccepts(t *testing.T) {
	f := newFiles(t)
	if out := want(t, command.Done, "listen:", "config", "example"); out != config.Example {
		t.Error("config example prints something else than the example")
	}
	want(t, command.Done, "The configuration is valid.", "config", "check", f.write(t, "c.yaml", config.Example))
}

func TestConfigCheckTakesOneFile(t *testing.T) {
	f := newFiles(t)
	good, bad := f.write(t, "good.yaml", config.Example), f.write(t, "bad.yaml", "listne: {}\n")
	want(t, command.Done, "The configuration is valid.", "config", "check", "--config", good)
	want(t, command.Misused, "name the configuration once", "config", "check", bad, "--config", good)
	want(t, command.Done, "The registry: no file yet.", "config", "check", "--connect", newFiles(t).base(t, ""))
	away := newFiles(t)
	want(t, command.Failed, "registry.url", "config", "check", "--connect", away.base(t, "registry: {url: 'postgres://127.0.0.1:1/none'}"))
	if help := want(t, command.Done, "config check [file]", "config", "check", "--help"); strings.Contains(help, "--file") {
		t.Errorf("help shows two ways:\n%s", help)
	}
}

// TestConfigCheckSaysWhatItRead also where a relay is installed.
func TestConfigCheckSaysWhatItRead(t *testing.T) {
	if _, err := os.Stat(config.DefaultPath); err == nil {
		_, out := execute(t, "config", "check")
		if !strings.HasPrefix(out, config.DefaultPath+" is checked.\n") {
			t.Errorf("without an argument it prints\n%swant the default path first", out)
		}
		return
	}
	out := want(t, command.Done, "The configuration is valid.", "config", "check")
	if said := "There is no " + config.DefaultPath + ": the defaults are checked.\n"; !strings.HasPrefix(out, said) {
		t.Errorf("without a file it prints\n%swant first\n%s", out, said)
	}
	if out := want(t, command.Done, "", "config", "check", newFiles(t).write(t, "c.yaml", config.Example)); strings.Contains(out, "checked") {
		t.Errorf("with a file it prints\n%s", out)
	}
}

// TestServeMakesItsDirectories, with nobody else let in, and config check tells of
// it before; where they can't be made, both say the same.
func TestServeMakesItsDirectories(t *testing.T) {
	f := newFiles(t)
	file := f.write(t, "c.yaml", fmt.Sprintf("listen: {address: \"127.0.0.1:0\"}\nops: {address: off}\nadmin: {socket: %s}\nregistry: {path: %s}\n",
		f.path("run/badgerelay/admin.sock"), f.path("lib/badgerelay/registry.db")))
	want(t, command.Done, "registry.path: serve makes the directory "+f.path("lib/badgerelay")+", for its user alone.\n", "config", "check", file)
	serve(t, file).stop(t)
	for _, dir := range []string{"lib/badgerelay", "run/badgerelay"} {
		if info, err := os.Stat(f.path(dir)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v; want a directory of mode 0700", dir, info, err)
		}
	}
	f.write(t, "taken", "")
	file = f.write(t, "taken.yaml", fmt.Sprintf("listen: {address: \"127.0.0.1:0\"}\nops: {address: off}\nadmin: {socket: %s}\nregistry: {path: %s}\n",
		f.path("admin.sock"), f.path("taken/below/registry.db")))
	say := "registry.path: the directory " + f.path("taken/below") + " is not there and can't be made: not a directory; as root run 'install -d -m 0700 -o "
	want(t, command.Misused, say, "config", "check", file)
	want(t, command.Misused, say, "serve", "--config", file)
}

// TestConfigCheckOfWhatIsNotYAML prints the one problem, and nothing about
// settings that could not be read.
func TestConfigCheckOfWhatIsNotYAML(t *testing.T) {
	for _, content := range []string{"listen:\n  address: [\n", "apps\n"} {
		file := newFiles(t).write(t, "c.yaml", content)
		out := want(t, command.Misused, "1 problem in the configuration", "config", "check", file)
		if !strings.HasPrefix(out, file+":") || strings.Contains(out, "warning") {
			t.Errorf("%q: the output is\n%swant one problem", content, out)
		}
	}
}

func TestConfigCheckPrintsEveryProblem(t *testing.T) {
	file := newFiles(t).write(t, "c.yaml", "listne: {}\nops:\n  address: nonsense\nrelay: {max_mailboxes: 3}\n")
	out := want(t, command.Misused, "badgerelay: 3 problems in the configuration", "config", "check", file)
	for _, part := range []string{
		file + ":1: listne: unknown key; did you mean \"listen\"?",
		file + ":3: ops.address: \"nonsense\" is not host:port",
		file + ":4: relay.max_mailboxes: 3 is outside 1000 to ",
	} {
		if !strings.Contains(out, part) {
			t.Errorf("the output lacks %q:\n%s", part, out)
		}
	}
	code, text := execute(t, "serve", "--config", file)
	if code != command.Misused || !strings.Contains(text, ":3: ops.address") || !strings.Contains(text, ":1: listne") {
		t.Errorf("serve with it = %d, %q; want %d with the same problems", code, text, command.Misused)
	}
}

func TestVersion(t *testing.T) {
	want(t, command.Done, "badgerelay ", "version")
	var v map[string]string
	if err := json.Unmarshal([]byte(want(t, command.Done, "", "version", "-o", "json")), &v); err != nil || v["version"] == "" {
		t.Errorf("version -o json = %v, %v", v, err)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		want(t, command.Done, "badgerelay", "completion", shell)
	}
}

// emptyTemp makes the system's directory for temporary files an empty one, and
// checks at the end that it is empty again.
func emptyTemp(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
}

func TestDemoChecksItself(t *testing.T) {
	emptyTemp(t)
	code, out := execute(t, "demo", "--check", "3s")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var r struct {
		Mailboxes, Devices, Events, Pushes, Superseded int
		Resent                                         *int
		ClientFaults                                   *int `json:"clientFaults"`
		WrongBadges                                    *int `json:"wrongBadges"`
		Shared                                         int  `json:"sharedDevices"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		t.Fatalf("demo --check = %d; last line is not JSON: %v\n%s", code, err, out)
	}
	if code != command.Done || r.Resent == nil || r.ClientFaults == nil || r.WrongBadges == nil || *r.ClientFaults != 0 || *r.WrongBadges != 0 {
		t.Errorf("demo --check = %d: %s", code, out)
	}
	// The rate is as slow as the machine; ten events a mailbox prove enough.
	if r.Events < 10*r.Mailboxes || r.Pushes < r.Devices || r.Superseded == 0 || r.Devices <= r.Mailboxes || r.Shared == 0 {
		t.Errorf("demo --check did too little: %s", out)
	}
}

func TestDemoEndsWithCtrlC(t *testing.T) {
	emptyTemp(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, code := &logbook{}, make(chan int, 1)
	go func() { // ends after cancel
		code <- run(ctx, []string{"demo"}, process{Terminal: terminal(strings.NewReader(""), out)})
	}()
	out.wait(t, "Ctrl-C ends it and leaves nothing behind.")
	text, _ := out.read()
	for name, part := range map[string]string{"Phones": "<", "Metrics": "badgerelay_events_accepted_total"} {
		url := regexp.MustCompile(name + ` +(http://\S+)`).FindStringSubmatch(text)
		if url == nil {
			t.Fatalf("the demo does not say where the %s are: %s", name, text)
		}
		if status, body := get(t, url[1]); status != http.StatusOK || !strings.Contains(body, part) {
			t.Errorf("GET %s = %d %.100q, want %q", url[1], status, body, part)
		}
	}
	if operate := "Operate  " + os.Args[0] + " status --admin "; !strings.Contains(text, operate) {
		t.Errorf("the demo does not say %q: %s", operate, text)
	}
	cancel()
	select {
	case got := <-code:
		if got != command.Done {
			t.Errorf("demo = %d, want %d", got, command.Done)
		}
	case <-time.After(testTimeout):
		t.Error("the demo does not end")
	}
}

// TestAHangupEndsTheDemo: closing its terminal leaves nothing running.
func TestAHangupEndsTheDemo(t *testing.T) {
	hangup := make(chan os.Signal, 1)
	ended := make(chan int, 1)
	out := &logbook{}
	go func() { // ends with the demo
		ended <- run(context.Background(), []string{"demo"}, process{Terminal: terminal(strings.NewReader(""), out), reload: hangup})
	}()
	out.wait(t, "Status   http://127.0.0.1:")
	hangup <- syscall.SIGHUP
	select {
	case code := <-ended:
		if code != command.Done {
			t.Errorf("the demo = %d", code)
		}
	case <-time.After(testTimeout):
		t.Fatal("the demo goes on without its terminal")
	}
}
