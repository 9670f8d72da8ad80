package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/command/commandtest"
)

// enrolled is a console that is set up, with a relay that knows it.
func enrolled(t *testing.T) (*console, *fakeRelay) {
	t.Helper()
	r := newFakeRelay(t)
	c := newConsole(t)
	c.ok("cert", "ensure", "--organization", testRealm)
	r.enrol(filepath.Join(c.dir, exportName))
	c.ok("auth-server", "set", "--metadata-url", r.web, "--ca", r.ca)
	c.ok("proxy", "enable", "--organization", testRealm)
	return c, r
}

func TestPublish(t *testing.T) {
	c, _ := enrolled(t)
	c.want(0, "The device is on ann now. Its icon follows the mailbox's next count.\n", "warning: mailbox ann has no domain: counts of ann@fabrikam.com don't reach it\n", "subscription", "add", "--mailbox", "ann", "--app", "mail", "--device-token", "ab")
	c.want(0, "The device was on ann already; its registration is renewed.\n", "warning: mailbox ann has no domain: counts of ann@fabrikam.com don't reach it\n", "subscription", "add", "--mailbox", "ann", "--app", "mail", "--device-token", "ab")
	c.want(0, "MAILBOX  APP   DEVICE_TOKEN  CREATED  REGISTERED\nann      mail  ab            -        -\n", "", "subscription", "list")
	c.want(0, "ann=7 delivered\n", "", "publish", "ann=7")
	c.want(0, "a=b=0 no_subscription\n", "warning: no device is subscribed to a=b; 'badgeagent subscription list' shows the mailboxes that have one\n", "publish", "a=b=0")
	c.want(0, "Ann@x=0 no_subscription\n", "warning: no device is subscribed to Ann@x; did you mean ann?\n", "publish", "Ann@x=0")
	c.want(1, "bad=1 rejected (mailbox): the test says so\n", "badgeagent: 1 of 1 count reached no device\n", "publish", "bad=1")
	c.want(1, "gone=1 undeliverable\n  subscription ended: app mail, ab, Unregistered\n", "badgeagent: 1 of 1 count reached no device\n", "publish", "gone=1")
	c.want(1, "", "badgeagent: not settled within --timeout: never: "+awaited+"\n", "publish", "never=1", "--timeout", "200ms")
	c.want(0, "The device is not on ann any more.\n", "", "subscription", "remove", "--mailbox", "ann", "--app", "mail", "--device-token", "ab")
	c.want(0, "The device is not on ann: there is nothing to remove. 'subscription list' shows which devices are where.\n", "", "subscription", "remove", "--mailbox", "ann", "--app", "mail", "--device-token", "ab")
	c.want(0, "The device is on bob@fabrikam.com now. Its icon follows the mailbox's next count.\n", "", "subscription", "add", "--mailbox", "bob@fabrikam.com", "--app", "mail", "--device-token", "ab")
	c.want(0, "The device is not on bob@fabirkam.com: there is nothing to remove. 'subscription list' shows which devices are where.\n",
		"warning: no device is subscribed to bob@fabirkam.com; did you mean bob@fabrikam.com?\n",
		"subscription", "remove", "--mailbox", "bob@fabirkam.com", "--app", "mail", "--device-token", "ab")
	c.want(0, "The device is not on bob@fabrikam.com any more.\n", "", "subscription", "remove", "--mailbox", "bob@fabrikam.com", "--app", "mail", "--device-token", "ab")
	c.want(0, "MAILBOX  APP  DEVICE_TOKEN  CREATED  REGISTERED\n", "", "subscription", "list")
	c.ok("subscription", "add", "--mailbox", "another@x", "--app", "mail", "--device-token", "ab")
	c.want(0, "another@x=1 no_subscription\n", "warning: no device shows the count of another@x, which has one; 'badgeagent explain another@x' says why\n", "publish", "another@x=1")
}

func TestSeveralMailboxes(t *testing.T) {
	c, _ := enrolled(t)
	device := []string{"--app", "mail", "--device-token", "ab"}
	say := func(want string, args ...string) { t.Helper(); c.want(0, want, "", append(args, device...)...) }
	say("The device is on ann@x now. Its icon follows the mailbox's next count.\n", "subscription", "add", "--mailbox", "ann@x")
	say("The device is on sales@x now, and on ann@x. Its icon follows the sum of their counts, once each has one.\n", "subscription", "add", "--mailbox", "sales@x", "--keep-others")
	say("The device came to board@x.\nIt left sales@x.\nIt stays on ann@x.\n", "device", "set", "--mailbox", "ann@x", "--mailbox", "board@x")
	say("It stays on ann@x, board@x.\n", "device", "set", "--mailbox", "ann@x", "--mailbox", "board@x")
	var done struct{ Added, Removed, Kept []string }
	must(t, json.Unmarshal([]byte(c.ok(append([]string{"device", "set", "--mailbox", "ann@x", "--mailbox", "board@x", "--output", "json"}, device...)...)), &done))
	if done.Added == nil || len(done.Added)+len(done.Removed) > 0 || !slices.Equal(done.Kept, []string{"ann@x", "board@x"}) {
		t.Errorf("in JSON: %+v", done)
	}
	for _, args := range [][]string{{}, {"--mailbox", "ann@x", "--none"}} {
		if code, out, _ := c.run(append(append([]string{"device", "set"}, device...), args...)...); code != 2 || out != "" {
			t.Errorf("device set %q: %d %q, want misuse", args, code, out)
		}
	}
	c.ok(append([]string{"device", "set", "--mailbox", "ann@x"}, device...)...)
	say("It left ann@x.\n", "device", "set", "--none")
	say("The device was on no mailbox.\n", "device", "set", "--none")
}

// TestWhatTheRelayRefuses is told in its words, without gRPC's around them, and
// is misuse where what was given breaks a rule.
func TestWhatTheRelayRefuses(t *testing.T) {
	c, _ := enrolled(t)
	c.want(2, "", "badgeagent: the relay refuses the call: field_invalid\n",
		"subscription", "add", "--mailbox", "ann@x", "--app", "mail", "--device-token", "bad")
	c.want(1, "", "badgeagent: the relay does not have the app, or not for fabrikam.com; check the app's name with the relay's operator: app_unknown\n",
		"subscription", "add", "--mailbox", "ann@x", "--app", "post", "--device-token", "ab")
}

func TestPublishRefusesBadCounts(t *testing.T) {
	c := newConsole(t) // nothing is read but the arguments
	for arg, want := range map[string]string{
		"ann":                           `"ann" is not mailbox=count`,
		"ann=":                          "is not a number from 0 to 2147483647",
		"ann=-1":                        "is not a number from 0 to 2147483647",
		"ann=x":                         "is not a number from 0 to 2147483647",
		"ann=2147483648":                "is not a number from 0 to 2147483647",
		"=1":                            "a mailbox is 1 to 256 bytes of UTF-8",
		strings.Repeat("x", 257) + "=1": "a mailbox is 1 to 256 bytes of UTF-8",
	} {
		code, out, stderr := c.run("publish", "bob=1", arg)
		if code != command.Misused || out != "" || !strings.Contains(stderr, want) {
			t.Errorf("publish %.20q: exit code %d, want 2; %q, want %q in it", arg, code, stderr, want)
		}
	}
}

func TestPublishReadsStandardInput(t *testing.T) {
	c, _ := enrolled(t)
	code, out, stderr := c.feed("# counts\nann=1\n\n  bob=2  \noops\neve=3", "publish")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(lines)
	if want := "ann=1 no_subscription,bob=2 no_subscription,eve=3 no_subscription"; strings.Join(lines, ",") != want {
		t.Errorf("printed %v, want %v", lines, want)
	}
	if want := "badgeagent: line 5: \"oops\" is not mailbox=count\n"; code != 1 || !strings.HasPrefix(stderr, want) {
		t.Errorf("exit code %d, want 1; on standard error %q, want %q", code, stderr, want)
	}
	code, out, stderr = c.feed("ann=1\n", "publish", "--output", "json")
	if want := `{"mailbox":"ann","unread":1,"outcome":"no_subscription"}` + "\n" + `{"submitted":1,"replaced":0,"settled":1}` + "\n"; code != 0 || out != want || !strings.Contains(stderr, "no device is subscribed to ann") {
		t.Errorf("JSON: %d %q %q, want %q", code, out, stderr, want)
	}
}

// TestPublishOnATerminalWantsCounts: it does not wait for what nobody knows to
// type, unless that is asked for.
func TestPublishOnATerminalWantsCounts(t *testing.T) {
	var said bytes.Buffer
	code := run(t.Context(), []string{"publish", "--dir", t.TempDir()}, &command.Terminal{In: commandtest.Terminal(t), Out: &said, Err: &said})
	if want := "badgeagent: badgeagent publish needs mailbox=count; 'badgeagent publish -' reads them from the terminal\nSee 'badgeagent publish --help'.\n"; code != command.Misused || said.String() != want {
		t.Errorf("%d %q, want %q", code, &said, want)
	}
	c, _ := enrolled(t)
	if code, out, _ := c.feed("ann=1\n", "publish", "-"); code != command.Done || out != "ann=1 no_subscription\n" {
		t.Errorf("publish -: %d %q", code, out)
	}
	if code, out, stderr := c.feed("", "publish", "-"); code != command.Done || out != "" || !strings.Contains(stderr, "standard input was empty") {
		t.Errorf("publish of nothing: %d %q %q", code, out, stderr)
	}
}

// TestCertificateIsNotForATerminal, which would show bytes of DER as it can.
func TestCertificateIsNotForATerminal(t *testing.T) {
	c := newConsole(t)
	c.ok("cert", "ensure", "--organization", "fabrikam.com")
	var said bytes.Buffer
	code := run(t.Context(), []string{"cert", "export", "--file", "-", "--dir", c.dir}, &command.Terminal{Out: commandtest.Terminal(t), Err: &said})
	if want := "badgeagent: standard output is a terminal, and a certificate is no text; name a file, or write > and one\nSee 'badgeagent cert export --help'.\n"; code != command.Misused || said.String() != want {
		t.Errorf("%d %q, want %q", code, &said, want)
	}
}

func TestPublishToNobody(t *testing.T) {
	c, r := enrolled(t)
	code, _, stderr := c.run("publish", "ann=1", "--relay", "127.0.0.1:1", "--timeout", "300ms")
	if code != command.Unreachable || !strings.Contains(stderr, "no relay listens at 127.0.0.1:1") || !strings.Contains(stderr, "1 not settled") {
		t.Errorf("unreachable relay: %d %q", code, stderr)
	}
	c.want(2, "", "badgeagent: relay \"relay\" is not host:port\nSee 'badgeagent publish --help'.\n", "publish", "ann=1", "--relay", "relay")
	c.want(2, "", "badgeagent: relay \"relay:99999\" is not host:port\nSee 'badgeagent publish --help'.\n", "publish", "ann=1", "--relay", "relay:99999")
	other := newFakeRelay(t)
	code, _, stderr = c.run("publish", "ann=1", "--ca", other.ca, "--timeout", "300ms")
	if code != command.Unreachable || !strings.Contains(stderr, "signed by none of the authorities in "+other.ca) {
		t.Errorf("wrong CA: %d %q", code, stderr)
	}
	code, _, stderr = c.run("publish", "ann=1", "--product", "Exchange", "--product-version", "15.0.1")
	if code != 1 || !strings.Contains(stderr, "older than the relay supports") {
		t.Errorf("old product: %d %q", code, stderr)
	}
	r.disable()
	code, _, stderr = c.run("publish", "ann=1")
	if code != 1 || !strings.Contains(stderr, "has disabled fabrikam.com") {
		t.Errorf("disabled organization: %d %q", code, stderr)
	}
}

func TestCallsBeforeSetup(t *testing.T) {
	const unset = "badgeagent: the push notification proxy was never enabled in DIR; run 'badgeagent proxy enable --organization ...', or name another directory with --dir\n" +
		"badgeagent: no auth server is set in DIR; run 'badgeagent auth-server set --metadata-url https://...', or name another directory with --dir\n" +
		"badgeagent: there is no certificate in DIR; run 'badgeagent cert ensure --organization ...', or name another directory with --dir\n"
	c := newConsole(t)
	c.want(command.Misused, "", unset, "publish", "ann=1")
	c.want(command.Misused, "", unset, "subscription", "list")
	config := filepath.Join(filepath.Dir(c.dir), "agent.yaml")
	c.want(command.Misused, "", "badgeagent: read configuration: there is no file "+config+"; the command 'config example' prints one to begin with; --config names the file that 'badgeagent serve' runs with\n",
		"explain", "ann", "--config", config)
	if err := os.WriteFile(config, fmt.Appendf(nil, "local: {socket: %s/agent.sock}\n", c.dir), 0o600); err != nil {
		t.Fatal(err)
	}
	c.want(command.Misused, "", unset+"badgeagent: the agent can't be asked either: it does not run: nothing listens on DIR/agent.sock\n", "explain", "ann", "--config", config)
	c.want(command.Misused, "", "badgeagent: mailbox \"\": a mailbox is 1 to 256 bytes of UTF-8\nSee 'badgeagent explain --help'.\n", "explain", "")
}

// TestExplainReachesNobody has neither relay nor agent answer: the page says it, and so
// does the exit code.
func TestExplainReachesNobody(t *testing.T) {
	c, _ := enrolled(t)
	code, page, stderr := c.run("explain", "ann", "--relay", "127.0.0.1:1", "--timeout", "2s")
	if code != command.Unreachable || !strings.HasPrefix(page, "No relay can be asked from here: no relay listens at") || stderr != "" {
		t.Errorf("exit code %d, want %d; %q\n%s", code, command.Unreachable, stderr, page)
	}
}

func TestProbeSucceeds(t *testing.T) {
	c, _ := enrolled(t)
	c.want(0, `Configuration     Succeeded TOOK  organization fabrikam.com, relay ADDRESS
Certificate       Succeeded TOOK  THUMBPRINT of fabrikam.com, N days left
Name resolution   Succeeded TOOK  127.0.0.1 is 127.0.0.1
TCP               Succeeded TOOK  connected to ADDRESS
TLS               Succeeded TOOK  TLS 1.3, certificate of 127.0.0.1, N days left
Clock             Succeeded TOOK  in step with the relay's
Metadata          Succeeded TOOK  https://ADDRESS/metadata/json/1?realm=fabrikam.com
Token             Succeeded TOOK  accepted until TIME
Organization      Succeeded TOOK  fabrikam.com is enabled; relay 1.0, instance one
Subscriptions     Succeeded TOOK  can be read; there are none yet
APNs              Succeeded TOOK  app mail: an impossible device token came back as BadDeviceToken
Mail server       Skipped TOOK  not counted: there is no configuration; name it with --config

ResultType : Succeeded
Error      :
Exception  :
`, "", "probe", "--app", "mail")
	var out command.Probe
	must(t, json.Unmarshal([]byte(c.ok("probe", "--output", "json")), &out))
	if out.ResultType != command.Succeeded || len(out.Stages) != 12 || out.Error != "" {
		t.Errorf("in JSON: %+v", out)
	}
}

func TestProbeWarnsOfOneRelayOfTwo(t *testing.T) {
	c, r := enrolled(t)
	code, text, _ := c.run("probe", "--relay", "127.0.0.1:1", "--relay", r.address)
	if code != 0 || !strings.Contains(text, "TCP               Warning") {
		t.Errorf("probe: %d %s, want a warning of the first relay", code, text)
	}
}
