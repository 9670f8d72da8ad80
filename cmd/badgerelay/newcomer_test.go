package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/command/commandtest"
)

// TestProbeNamesWhatKeepsAppleAway has the app's address and authorities be wrong,
// as a typing error leaves them.
func TestProbeNamesWhatKeepsAppleAway(t *testing.T) {
	plain := listen(t)
	go func() { // ends with the listener
		for {
			conn, err := plain.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "HTTP/1.0 400 Bad Request\r\n\r\n")
			conn.Close()
		}
	}()
	closed := listen(t)
	closed.Close()
	for name, test := range map[string]struct {
		address string
		foreign bool // the authorities are another relay's
		none    bool // there are none in the configuration
		want    []string
	}{
		"nothing listens":   {closed.Addr().String(), false, false, []string{"connection refused", "check apps[].address of app mail, " + closed.Addr().String()}},
		"another service":   {plain.Addr().String(), false, false, []string{"check apps[].address of app mail, " + plain.Addr().String()}},
		"other authorities": {"", true, false, []string{"unknown authority", "check apps[].ca_file of app mail"}},
		"no authorities":    {"", false, true, []string{"unknown authority", "check apps[].ca_file of app mail, which is not set: what answers at 127.0.0.1:"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t)
			_, app := apple(t, f)
			if test.address != "" {
				app = regexp.MustCompile(`address: .*`).ReplaceAllString(app, "address: "+test.address)
			}
			if test.foreign {
				other, _ := f.pair(t, "other")
				app = strings.ReplaceAll(app, f.path("apple.crt"), other)
			}
			if test.none {
				app = regexp.MustCompile(`    ca_file: .*\n`).ReplaceAllString(app, "")
			}
			s := serve(t, f.base(t, app))
			began := time.Now()
			out := want(t, command.Failed, "ResultType : Failed", "probe", "--admin", s.Admin)
			for _, part := range test.want {
				if !strings.Contains(out, part) {
					t.Errorf("the probe says %s; want %q in it", out, part)
				}
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("the probe took %s", took)
			}
		})
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) // once more does no harm
	return l
}

// TestNewOperatorsMistakes has an operator name what is not there, or is something else.
func TestNewOperatorsMistakes(t *testing.T) {
	f := newFiles(t)
	_, app := apple(t, f)
	s := serve(t, f.base(t, app))
	at := func(args ...string) []string { return append(args, "--admin", s.Admin) }
	out := want(t, 0, "is enrolled", at("organization", "add", "fabrikam.com")...)
	if strings.Contains(out, "OAuthCert.cer") || !strings.Contains(out, "badgeagent cert ensure --organization fabrikam.com") {
		t.Errorf("organization add says %s: it names a file that is not there, or not what makes it", out)
	}
	want(t, 0, "warning: organization fabrikam has no dot in its name", at("organization", "add", "fabrikam")...)
	want(t, 2, "organization update needs what is to change: --apps", at("organization", "update", "fabrikam.com")...)
	want(t, 2, "badgeagent cert ensure", at("credential", "add", "fabrikam.com", "--certificate", f.path("none.cer"))...)
	key := f.path("some.key")
	if err := os.WriteFile(key, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, 2, "holds a private key, which nobody should have sent you", at("credential", "add", "fabrikam.com", "--certificate", key)...)
	device := []string{"--organization", "fabrikam.com", "--app", "mail", "--device-token", strings.Repeat("ab", 32), "--mailbox"}
	add := func(mailbox string) []string {
		return at(append([]string{"subscription", "add"}, append(device, mailbox)...)...)
	}
	want(t, 2, "is several mailboxes", add("ann@fabrikam.com,bob@fabrikam.com")...)
	want(t, 2, "begins or ends with a space", add(" ann@fabrikam.com")...)
	want(t, 2, "a mailbox is 1 to 256 bytes", add("")...)
	want(t, 0, "warning: mailbox ann has no domain: counts of ann@fabrikam.com don't reach it", add("ann")...)
	want(t, 0, "no device is subscribed to bob", at("subscription", "list", "fabrikam.com", "--mailbox", "bob")...)
	out = want(t, 0, "The device left ann and is on ann@fabrikam.com now.", add("ann@fabrikam.com")...)
	if strings.Contains(out, "warning") {
		t.Errorf("a mailbox with a domain: %s", out)
	}
	for meant, args := range map[string][]string{
		"no organization fabirkam.com (ORGANIZATION_NOT_FOUND); did you mean fabrikam.com?":       {"organization", "show", "fabirkam.com"},
		"ORGANIZATION_NOT_FOUND); did you mean fabrikam.com?":                                     {"credential", "list", "--organization", "fabrikam.co"},
		`no app "mial" (APP_UNKNOWN); did you mean mail?`:                                         {"probe", "--app", "mial"},
		`no app "mali" (APP_UNKNOWN); did you mean mail?`:                                         {"organization", "update", "fabrikam.com", "--apps", "mail,mali"},
		`no app "mai" (APP_UNKNOWN); did you mean mail?`:                                          {"subscription", "add", "fabrikam.com", "--mailbox", "ann", "--app", "mai", "--device-token", strings.Repeat("ab", 32), "--dry-run"},
		"ORGANIZATION_NOT_FOUND); 'badgerelay organization list --removed' lists those there are": {"organization", "purge", "fabrikam.con", "--yes"},
		"ORGANIZATION_NOT_FOUND); 'badgerelay organization list' lists those there are":           {"organization", "show", "contoso.com"},
	} {
		want(t, command.Failed, meant, at(args...)...)
	}
	remove := func(mailbox string) []string {
		return append([]string{"subscription", "remove"}, append(device, mailbox)...)
	}
	want(t, command.Done, "no device is subscribed to anm@fabrikam.com; did you mean ann@fabrikam.com?", at(remove("anm@fabrikam.com")...)...)
}

// TestRemovalOfNothing is told and is no failure where a device is not on a mailbox, and
// is one where what is named is not there.
func TestRemovalOfNothing(t *testing.T) {
	f := newFiles(t)
	s := serve(t, f.base(t, ""))
	at := func(args ...string) []string { return append(args, "--admin", s.Admin) }
	want(t, command.Done, "", at("organization", "add", "fabrikam.com")...)
	remove := at("subscription", "remove", "fabrikam.com", "--app", "mail", "--mailbox", "ann@fabrikam.com", "--device-token", strings.Repeat("cd", 32))
	want(t, command.Done, "The device is not on ann@fabrikam.com: there is nothing to remove.", remove...)
	want(t, command.Done, "Dry run: this would change nothing: the device is not on ann@fabrikam.com.", append(remove, "--dry-run")...)
	if out := want(t, command.Done, "", append(remove, "--output", "json")...); out != "{\n  \"mailbox\": \"ann@fabrikam.com\",\n  \"removed\": false\n}\n" {
		t.Errorf("JSON %s", out)
	}
	for reason, args := range map[string][]string{
		"ORGANIZATION_NOT_FOUND": {"organization", "remove", "contoso.com", "--yes"},
		"no organization cont":   {"subscription", "remove", "contoso.com", "--app", "mail", "--mailbox", "ann", "--device-token", strings.Repeat("cd", 32)},
		"CREDENTIAL_NOT_FOUND":   {"credential", "remove", "--organization", "fabrikam.com", "00"},
	} {
		want(t, command.Failed, reason, at(args...)...)
		want(t, command.Failed, reason, at(append(args, "--dry-run")...)...)
	}
}

// TestAdminAtTheAgentsListener has an operator's command reach the door for agents.
func TestAdminAtTheAgentsListener(t *testing.T) {
	f := newFiles(t)
	certificate, key := f.pair(t, "relay")
	s := serve(t, f.base(t, fmt.Sprintf("listen:\n  address: 127.0.0.1:0\n  tls: {certificate_file: %s, key_file: %s}\nauth: {authorities: [localhost]}\n", certificate, key)))
	_, port, _ := net.SplitHostPort(s.Agents)
	want(t, 2, "is where agents send counts; the admin listener is at admin.address or admin.socket",
		"status", "--admin", "localhost:"+port, "--ca", certificate, "--tls-cert", certificate, "--tls-key", key)
}

// TestHintsOfTheCommandLine names what another command, or badgeagent, has by that name.
func TestHintsOfTheCommandLine(t *testing.T) {
	for line, hint := range map[string]string{
		"explain ann@fabrikam.com": `did you mean "mailbox show"?`,
		"backup x.db":              `did you mean "registry backup"?`,
		"add fabrikam.com":         `did you mean "credential add", "organization add" or "subscription add"?`,
		"serve -config x":          "did you mean --config?",
		"organization add --organization fabrikam.com": "organization add takes it as its argument <domain>",
	} {
		want(t, command.Misused, hint, strings.Fields(line)...)
	}
}

// TestTerminal is not what a registry is written to, nor what devices are read from
// unless that is asked for.
func TestTerminal(t *testing.T) {
	terminal := commandtest.Terminal(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"registry", "backup", "-"}, "standard output is a terminal, and a registry is no text; name a file, or write > and one"},
		{[]string{"subscription", "import", "--organization", "fabrikam.com", "--admin", "/x"}, "badgerelay subscription import needs a file; 'badgerelay subscription import -' reads from the terminal"},
	} {
		var said bytes.Buffer
		code := run(t.Context(), test.args, process{Terminal: &command.Terminal{In: terminal, Out: terminal, Err: &said, Getenv: func(string) string { return "" }}})
		if code != command.Misused || !strings.HasPrefix(said.String(), "badgerelay: "+test.want+"\n") {
			t.Errorf("%v: %d %q, want %q", test.args, code, &said, test.want)
		}
	}
}
