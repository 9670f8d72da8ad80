package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/command"
)

// TestCertificateOfAnotherOrganization has a directory hold the certificate of one
// organization, and another be named: by a slip, or because it is to be another's.
func TestCertificateOfAnotherOrganization(t *testing.T) {
	c := newConsole(t)
	first := thumbprint(t, c.ok("cert", "ensure", "--organization", "fabrikam.com"))
	for _, more := range [][]string{nil, {"--dry-run"}} {
		c.want(2, "", "badgeagent: the certificate in DIR is that of fabrikam.com, not of contoso.com; name another directory with --dir, or have it replaced with --replace\n",
			append([]string{"cert", "ensure", "--organization", "contoso.com"}, more...)...)
	}
	if still := thumbprint(t, c.ok("cert", "ensure", "--organization", "FABRIKAM.com", "--replace")); still != first {
		t.Errorf("--replace made another certificate of the same organization: %s after %s", still, first)
	}
	c.ok("cert", "stage")
	if out := c.ok("cert", "ensure", "--organization", "contoso.com", "--replace", "--dry-run"); !strings.Contains(out, "would create a certificate for contoso.com") ||
		!strings.Contains(out, ", and delete the next one, ") {
		t.Errorf("dry run: %s", out)
	}
	out := c.ok("cert", "ensure", "--organization", "contoso.com", "--replace")
	next := thumbprint(t, out)
	if !strings.Contains(out, "Deleted the next certificate: ") {
		t.Errorf("it does not say what became of the staged one: %s", out)
	}
	if next == first {
		t.Error("the other organization has the same certificate")
	}
	if show := c.ok("cert", "show"); !strings.Contains(show, "CN=contoso.com") || strings.Index(show, next) > strings.Index(show, first) {
		t.Errorf("show: %s\nwant %s current, %s previous", show, next, first)
	}
}

// TestMissingSettingsAreOneLineEach has a probe meet an empty directory.
func TestMissingSettingsAreOneLineEach(t *testing.T) {
	c := newConsole(t)
	code, out, _ := c.run("probe")
	if code != command.Misused || strings.Contains(out, `\n`) || !strings.Contains(out, "with --dir; no auth server is set in ") {
		t.Errorf("probe = %d, %s", code, out)
	}
}

// TestRealmThatTheRelayDoesNotKnow fetches a document for an organization that is
// not enrolled: the relay shows one for any.
func TestRealmThatTheRelayDoesNotKnow(t *testing.T) {
	r := newFakeRelay(t)
	c := newConsole(t)
	c.ok("cert", "ensure", "--organization", "contoso.com")
	code, out, stderr := c.run("auth-server", "set", "--metadata-url", r.web, "--ca", r.ca)
	if code != 0 || !strings.HasPrefix(out, "Kept:") {
		t.Fatalf("auth-server set = %d, %s %s", code, out, stderr)
	}
	for _, part := range []string{"warning: the address is for organization fabrikam.com, and the certificate in ", "is that of contoso.com",
		"warning: the relay does not take tokens of fabrikam.com yet: the relay does not accept this certificate's key"} {
		if !strings.Contains(stderr, part) {
			t.Errorf("auth-server set says %q; want %q in it", stderr, part)
		}
	}
	_, _, stderr = c.run("proxy", "enable", "--organization", "fabrikam.com")
	if !strings.Contains(stderr, "is that of contoso.com, not of fabrikam.com") {
		t.Errorf("proxy enable says %q", stderr)
	}
}

// TestCertificateThatIsNotTheRelays has one exit code, whichever command meets it, and so
// does what speaks no TLS.
func TestCertificateThatIsNotTheRelays(t *testing.T) {
	c, r := enrolled(t)
	other, plain := newFakeRelay(t), httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	named := httptest.NewTLSServer(http.NotFoundHandler()) // for 127.0.0.1 and example.com
	defer named.Close()
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"probe", "--ca", other.ca}, "signed by none of the authorities"},
		{[]string{"publish", "ann=1", "--ca", other.ca, "--timeout", "300ms"}, "signed by none of the authorities"},
		{[]string{"auth-server", "set", "--metadata-url", r.web, "--ca", other.ca}, "signed by none of the authorities"},
		{[]string{"auth-server", "set", "--metadata-url", strings.Replace(named.URL, "127.0.0.1", "localhost", 1)}, "the certificate does not name localhost"},
		{[]string{"auth-server", "set", "--metadata-url", strings.Replace(plain.URL, "http:", "https:", 1)}, "speaks no TLS"},
	} {
		if code, out, stderr := c.run(test.args...); code != command.Unreachable || !strings.Contains(out+stderr, test.want) {
			t.Errorf("%v: exit code %d, want %d; %q, want %q in it", test.args, code, command.Unreachable, out+stderr, test.want)
		}
	}
}

// TestMailboxesThatAreNone names mailboxes that no count can reach.
func TestMailboxesThatAreNone(t *testing.T) {
	c := newConsole(t)
	device := []string{"--app", "mail", "--device-token", strings.Repeat("ab", 32), "--mailbox"}
	for mailbox, problem := range map[string]string{
		"": "a mailbox is 1 to 256 bytes of UTF-8", strings.Repeat("a", 257): "a mailbox is 1 to 256 bytes of UTF-8", "a\xff": "a mailbox is 1 to 256 bytes of UTF-8",
		" ann@fabrikam.com": "begins or ends with a space", "ann@fabrikam.com\t": "has a control character", "ann\x00@fabrikam.com": "has a control character",
		"ann@fabrikam.com,bob@fabrikam.com": "is several mailboxes", "ann@fabrikam.com bob@fabrikam.com": "is several mailboxes",
	} {
		for _, args := range [][]string{
			append([]string{"subscription", "add"}, append(device, mailbox)...), append([]string{"device", "set"}, append(device, mailbox)...), {"publish", mailbox + "=1"},
		} {
			if code, _, stderr := c.run(args...); code != 2 || !strings.Contains(stderr, problem) {
				t.Errorf("%q = %d, %q; want %q", args, code, stderr, problem)
			}
		}
		none := strings.Contains(problem, "1 to 256 bytes") || strings.Contains(problem, "control character") // a relay has no such mailbox
		for _, args := range [][]string{                                                                      // what is there already, whoever made it
			append([]string{"subscription", "remove"}, append(device, mailbox)...), {"explain", mailbox},
		} {
			if _, _, stderr := c.run(args...); strings.Contains(stderr, problem) != none {
				t.Errorf("%q says %q; want %q in it: %t", args, stderr, problem, none)
			}
		}
	}
}

// TestDirectoryThatCannotBeMade names the way out.
func TestDirectoryThatCannotBeMade(t *testing.T) {
	c := newConsole(t)
	link := filepath.Join(t.TempDir(), "dangling")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	code, _, said := c.run("cert", "ensure", "--organization", "fabrikam.com", "--dir", link)
	if code != 1 || !strings.Contains(said, "dangling") || !strings.Contains(said, "; --dir or $BADGEAGENT_DIR names another one") {
		t.Errorf("exit code %d, %q", code, said)
	}
}

// TestRefusedFieldIsNamedAsTheFlag has a relay refuse a field that a flag gave.
func TestRefusedFieldIsNamedAsTheFlag(t *testing.T) {
	st, err := status.New(codes.InvalidArgument, "device_token: byte 1 of 64 is no hexadecimal digit").WithDetails(&errdetails.ErrorInfo{Domain: "badgerelay", Reason: "FIELD_INVALID"})
	must(t, err)
	said := new(settings).explain(st.Err())
	if _, invalid := errors.AsType[*command.InvalidError](said); !invalid || said.Error() != "--device-token byte 1 of 64 is no hexadecimal digit" {
		t.Errorf("%v", said)
	}
}

// TestOuterSpacesOfAnAddress come with it from a mail.
func TestOuterSpacesOfAnAddress(t *testing.T) {
	r := newFakeRelay(t)
	c := newConsole(t)
	if out := c.ok("auth-server", "set", "--metadata-url", " "+r.web+" ", "--ca", r.ca); !strings.HasSuffix(out, "\nNext: badgeagent proxy enable --organization fabrikam.com\n") {
		t.Errorf("auth-server set says %q, and nothing of what is next", out)
	}
	if show := c.ok("auth-server", "show"); !strings.Contains(show, ": "+r.web+"\n") {
		t.Errorf("kept: %s", show)
	}
}

// TestHintsOfTheCommandLine names the flag that an argument is meant for, and what
// badgerelay has by another name.
func TestHintsOfTheCommandLine(t *testing.T) {
	c := newConsole(t)
	for line, hint := range map[string]string{
		"mailbox show ann@fabrikam.com":          `did you mean "explain"?`,
		"cert ensure fabrikam.com":               "; give it with --organization or --domain",
		"proxy enable fabrikam.com":              "; give it with --organization",
		"subscription list ann@fabrikam.com":     "; give it with --mailbox",
		"auth-server set https://relay.example/": "; give it with --metadata-url",
	} {
		if code, _, stderr := c.run(strings.Fields(line)...); code != command.Misused || !strings.Contains(stderr, hint+"\n") {
			t.Errorf("%s: %d %q, want %q", line, code, stderr, hint)
		}
	}
}

// TestMissingConfigurationIsNamed has no file be where one is read from.
func TestMissingConfigurationIsNamed(t *testing.T) {
	if _, err := os.Stat(config.DefaultPath); err == nil {
		t.Skipf("there is %s", config.DefaultPath)
	}
	c := newConsole(t)
	missing := "there is no " + config.DefaultPath + "; the command 'config example' prints one to begin with, and --config names another file\n"
	c.want(2, "", "badgeagent: "+missing, "serve")
	c.want(2, missing, "badgeagent: 1 problem in the configuration\n", "config", "check")
}
