package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent/enrolment"
)

func TestCertEnsureIsIdempotent(t *testing.T) {
	c := newConsole(t)
	first := c.ok("cert", "ensure", "--organization", "Fabrikam.com")
	want := "Creating certificate for oAuth...\nConfigured Certificate Thumbprint is: THUMBPRINT\nExporting certificate...\nComplete.\nThe public part is in DIR/OAuthCert.cer: give it to the relay's operator, for 'badgerelay credential add'.\n"
	if got := c.blur(first); got != want {
		t.Errorf("first time: %q, want %q", got, want)
	}
	second := c.ok("cert", "ensure", "--domain", "fabrikam.com")
	if want := strings.TrimPrefix(first, "Creating certificate for oAuth...\n"); second != want {
		t.Errorf("second time: %q, want the same thumbprint: %q", second, want)
	}
	file := filepath.Join(t.TempDir(), "sub", "x.cer")
	c.ok("cert", "export", "--file", file)
	a, err := os.ReadFile(file)
	must(t, err)
	b, err := os.ReadFile(filepath.Join(c.dir, "OAuthCert.cer"))
	must(t, err)
	if string(a) != string(b) || a[0] != 0x30 {
		t.Errorf("exported %d and %d bytes, want the same DER", len(a), len(b))
	}
}

// TestExportsArePublic: a web server under another user reads them.
func TestExportsArePublic(t *testing.T) {
	c := newConsole(t)
	c.ok("cert", "ensure", "--organization", "fabrikam.com")
	dir := t.TempDir()
	for _, args := range [][]string{{"metadata"}, {"cert", "export"}} {
		parent := filepath.Join(dir, args[0], "json")
		file := filepath.Join(parent, "file")
		if out := c.ok(append(args, "--file", file)...); !strings.Contains(out, "Creating directory "+parent+"...\n") {
			t.Errorf("%v: printed %q, want the directory that it makes", args, out)
		}
		c.ok(append(args, "--file", file)...) // again, over the old one
		for path, mode := range map[string]os.FileMode{filepath.Dir(parent): 0o755, parent: 0o755, file: 0o644} {
			info, err := os.Stat(path)
			must(t, err)
			if got := info.Mode().Perm(); got != mode && runtime.GOOS != "windows" {
				t.Errorf("%s: mode %v, want %v", path, got, mode)
			}
		}
		code, out, stderr := c.run(append(args, "--file", parent)...)
		if want := "badgeagent: --file " + parent + " is a directory; name a file in it\n"; code != command.Misused || out != "" || !strings.HasPrefix(stderr, want) {
			t.Errorf("%v to a directory: exit code %d, %q, want %q", args, code, stderr, want)
		}
		content, err := os.ReadFile(file)
		must(t, err)
		if out := c.ok(append(args, "--file", "-")...); strings.TrimSuffix(out, "\n") != strings.TrimSuffix(string(content), "\n") {
			t.Errorf("%v --file - prints %.40q, want what is in the file", args, out)
		}
	}
	if code, _, stderr := c.run("cert", "ensure", "--organization", "fabrikam.com", "--file", "-"); code != command.Misused || !strings.Contains(stderr, "cert export --file -") {
		t.Errorf("cert ensure --file -: exit code %d, %q", code, stderr)
	}
}

// TestAnExportDestroysNothing names files that hold something else.
func TestAnExportDestroysNothing(t *testing.T) {
	c, _ := enrolled(t)
	keys, err := filepath.Glob(filepath.Join(c.dir, "certificates", "*"))
	must(t, err)
	dir := t.TempDir()
	for name, to := range map[string]string{"link.cer": keys[0], "link.key": keys[1], "certificates": filepath.Dir(keys[0])} {
		must(t, os.Symlink(to, filepath.Join(dir, name)))
	}
	must(t, os.WriteFile(filepath.Join(dir, "notes"), []byte("mine\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600))
	files := append(keys, filepath.Join(c.dir, "certificates", "new.cer"), filepath.Join(c.dir, "certificates", "new", "new.cer"), filepath.Join(c.dir, "proxy.json"),
		filepath.Join(c.dir, "auth-server.json"), filepath.Join(dir, "link.cer"), filepath.Join(dir, "link.key"), filepath.Join(dir, "certificates", "new.cer"), filepath.Join(dir, "notes"))
	for _, args := range [][]string{{"cert", "export"}, {"cert", "ensure", "--organization", "fabrikam.com"}, {"metadata"}} {
		for _, file := range files {
			kept, _ := os.ReadFile(file) // none: there is no file
			for _, more := range [][]string{nil, {"--dry-run"}} {
				code, _, stderr := c.run(append(append(args, "--file", file), more...)...)
				if code != command.Misused || !strings.Contains(stderr, "--file "+file) {
					t.Errorf("%v --file %s %v: exit code %d, %q, want a refusal", args, file, more, code, stderr)
				}
			}
			if left, _ := os.ReadFile(file); !bytes.Equal(left, kept) {
				t.Errorf("%v: %s was written", args, file)
			}
		}
		empty := filepath.Join(dir, "empty")
		c.ok(append(args, "--file", empty)...)
		must(t, os.Truncate(empty, 0))
	}
	c.ok("cert", "export", "--file", filepath.Join(dir, "mine.cer"))
	if code, _, stderr := c.run("metadata", "--file", filepath.Join(dir, "mine.cer")); code != command.Misused {
		t.Errorf("a metadata document over a certificate: exit code %d, %q", code, stderr)
	}
}

func TestCertRollover(t *testing.T) {
	c := newConsole(t)
	c.want(1, "", "badgeagent: there is no certificate in DIR; run 'badgeagent cert ensure --organization ...', or name another directory with --dir\n", "cert", "stage")
	c.want(1, "", "badgeagent: there is no certificate in DIR; run 'badgeagent cert ensure --organization ...', or name another directory with --dir\n", "cert", "show")
	first := thumbprint(t, c.ok("cert", "ensure", "--organization", "fabrikam.com"))
	c.want(1, "", "badgeagent: no next certificate is staged in DIR; run 'badgeagent cert stage', or name another directory with --dir\n", "cert", "publish")
	c.want(1, "", "badgeagent: no next certificate is staged in DIR; run 'badgeagent cert stage', or name another directory with --dir\n", "cert", "export", "--next")
	c.want(1, "", "badgeagent: TIME is less than 48 hours from now: the relay may not know the new certificate in time; --force does it all the same\n",
		"cert", "stage", "--effective", "2026-01-01T00:00:00Z")
	c.want(2, "", "badgeagent: --effective \"tomorrow\" is not a time such as TIME or 2027-01-31\nSee 'badgeagent cert stage --help'.\n",
		"cert", "stage", "--effective", "tomorrow")
	next := thumbprint(t, c.ok("cert", "stage"))
	if again := c.ok("cert", "stage"); thumbprint(t, again) != next || !strings.Contains(again, "staged already") {
		t.Errorf("staged again: %s, want %s to stay", again, next)
	}
	code, _, stderr := c.run("cert", "publish")
	if code != 1 || !strings.Contains(stderr, "is not effective before") {
		t.Errorf("publish before its time: %d %q, want a refusal", code, stderr)
	}
	if got := thumbprint(t, c.ok("cert", "publish", "--force")); got != next || got == first {
		t.Errorf("published %s, want %s", got, next)
	}
	show := c.ok("cert", "show")
	if got := regexp.MustCompile(`[0-9A-F]{40}`).FindAllString(show, -1); len(got) != 2 || got[0] != next || got[1] != first {
		t.Errorf("show: %v, want current %s and previous %s", got, next, first)
	}
	var out struct{ Current, Next, Previous *certificateLine }
	must(t, json.Unmarshal([]byte(c.ok("cert", "show", "--output", "json")), &out))
	if out.Current.Thumbprint != next || out.Next != nil || out.Previous.Thumbprint != first || out.Current.PublicKeySize != 2048 {
		t.Errorf("show in JSON: %+v", out)
	}
}

// TestPublishTwiceInARow: the certificate of before may be the only one that the relay
// knows, and is not deleted unless somebody says so.
func TestPublishTwiceInARow(t *testing.T) {
	c := newConsole(t)
	first := thumbprint(t, c.ok("cert", "ensure", "--organization", "fabrikam.com"))
	stage := []string{"cert", "stage", "--effective", "2026-01-01T00:00:00Z", "--force"}
	c.ok(stage...)
	c.ok("cert", "publish")
	c.ok(stage...)
	refusal := "badgeagent: the previous certificate, THUMBPRINT, is in its overlap until TIME, and the relay may know only that one; " +
		"wait until then, or first delete it with 'badgeagent cert retire --force'"
	for _, args := range [][]string{{"cert", "publish"}, {"cert", "publish", "--dry-run"}} {
		c.want(1, "", refusal+", or publish with --force, which deletes it\n", args...)
	}
	c.want(1, "", refusal+"\n", "cert", "ensure", "--organization", "contoso.com", "--replace")
	if show := c.ok("cert", "show"); !strings.Contains(show, first) {
		t.Errorf("show:\n%s\nwant %s still in it", show, first)
	}
	if said := c.ok("cert", "publish", "--force"); !strings.Contains(said, "Deleted the previous certificate: "+first) {
		t.Errorf("with --force it says\n%s", said)
	}
	if keys, err := filepath.Glob(filepath.Join(c.dir, "certificates", "*.key")); err != nil || len(keys) != 2 {
		t.Errorf("there are the keys %v, %v; want two", keys, err)
	}
}

// TestTheRelayIsAskedBeforeAKeyIsGivenUp has a roll-over go on by hand at a relay that does
// not know the new certificate.
func TestTheRelayIsAskedBeforeAKeyIsGivenUp(t *testing.T) {
	c, r := enrolled(t)
	c.ok("cert", "stage", "--effective", "2026-01-01T00:00:00Z", "--force")
	next := filepath.Join(c.dir, exportNextName)
	const refusal = "badgeagent: the relay does not accept this certificate's key; " +
		"have its operator register the exported certificate, thumbprint THUMBPRINT: token_key_unknown; --force publishes it all the same\n"
	before := c.ok("cert", "show")
	for _, args := range [][]string{{"cert", "publish"}, {"cert", "publish", "--dry-run"}} {
		c.want(1, "", refusal, args...)
	}
	if show := c.ok("cert", "show"); show != before {
		t.Errorf("show:\n%s\nwant as before:\n%s", show, before)
	}
	code, _, stderr := c.run("cert", "publish", "--force")
	if code != command.Done || !strings.Contains(stderr, "warning: the relay does not accept ") {
		t.Errorf("with --force: exit code %d, %q, want a warning", code, stderr)
	}
	c.overlapEnded()
	code, _, stderr = c.run("cert", "retire")
	if code != command.Failed || !strings.Contains(stderr, "the previous certificate is kept until the relay accepts the current one") {
		t.Errorf("retire: exit code %d, %q", code, stderr)
	}
	r.enrol(next)
	if said := c.ok("cert", "retire"); !strings.HasPrefix(said, "Deleted the previous certificate: ") {
		t.Errorf("retire: %q", said)
	}
	c.ok("cert", "stage", "--effective", "2026-01-01T00:00:00Z", "--force")
	r.enrol(next)
	c.ok("cert", "publish")
	c.ok("cert", "stage", "--effective", "2026-01-01T00:00:00Z", "--force")
	c.overlapEnded()
	c.unreachable()
	code, _, stderr = c.run("cert", "retire")
	if code != command.Unreachable || !strings.Contains(stderr, " is not known: no relay listens at ") {
		t.Errorf("retire without an answer: exit code %d, %q", code, stderr)
	}
	if code, _, stderr = c.run("cert", "publish"); code != command.Done || !strings.Contains(stderr, "warning: whether the relay accepts ") {
		t.Errorf("publish without an answer: exit code %d, %q, want a warning", code, stderr)
	}
}

// overlapEnded has the overlap of the previous certificate over.
func (c *console) overlapEnded() {
	c.edit(filepath.Join("certificates", "state.json"), regexp.MustCompile(`"retireAt": "\d+`), `"retireAt": "2025`)
}

// unreachable has the kept address of the relay be one at which nobody listens.
func (c *console) unreachable() {
	c.edit("auth-server.json", regexp.MustCompile(`127\.0\.0\.1:\d+"`), `127.0.0.1:1"`)
}

func (c *console) edit(name string, what *regexp.Regexp, with string) {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	content, err := os.ReadFile(path)
	must(c.t, err)
	edited := what.ReplaceAll(content, []byte(with))
	if bytes.Equal(edited, content) {
		c.t.Fatalf("%s has nothing to edit:\n%s", name, content)
	}
	must(c.t, os.WriteFile(path, edited, 0o600))
}

func thumbprint(t *testing.T, s string) string {
	t.Helper()
	found := regexp.MustCompile(`[0-9A-F]{40}`).FindString(s)
	if found == "" {
		t.Fatalf("no thumbprint in %q", s)
	}
	return found
}

func TestAuthServer(t *testing.T) {
	r := newFakeRelay(t)
	c := newConsole(t)
	c.want(1, "", "badgeagent: no auth server is set in DIR; run 'badgeagent auth-server set --metadata-url https://...', or name another directory with --dir\n", "auth-server", "show")
	c.want(0, "Dry run: this would keep what https://ADDRESS/metadata/json/1?realm=fabrikam.com says.\n", "",
		"auth-server", "set", "--metadata-url", r.web, "--ca", r.ca, "--dry-run")
	const next = "Next: badgeagent proxy enable --organization fabrikam.com\n"
	c.want(0, "Kept: where the relay is, and whom tokens are meant for.\n"+next, "", "auth-server", "set", "--metadata-url", r.web, "--ca", r.ca)
	c.want(0, "Nothing has changed.\n"+next, "", "auth-server", "set", "--metadata-url", r.web)
	c.want(0, "Kept: the relay's metadata has changed.\n"+next, "warning: another metadata address was kept, https://ADDRESS/metadata/json/1?realm=fabrikam.com; it is replaced\n",
		"auth-server", "set", "--metadata-url", r.web+"&x=1")
	show := c.blur(c.ok("auth-server", "show"))
	for _, want := range []string{
		"Metadata URL : https://ADDRESS/metadata/json/1?realm=fabrikam.com&x=1\n", "Principal    : GUID\n",
		"Audience     : GUID/relay.test@fabrikam.com\n", "Relays       : ADDRESS\n",
	} {
		if !strings.Contains(show, want) {
			t.Errorf("show:\n%s\nwant %q in it", show, want)
		}
	}
}

// TestAuthServerDropsItsAuthorities goes back to the system's, which do not know the
// relay's: it is refused, and what was kept stays.
func TestAuthServerDropsItsAuthorities(t *testing.T) {
	c, r := enrolled(t)
	code, _, stderr := c.run("auth-server", "set", "--metadata-url", r.web, "--ca", "")
	if code != command.Misused || !strings.Contains(stderr, "--ca is empty; --system-ca trusts the system's authorities again") {
		t.Errorf("an empty --ca: %d %q", code, stderr)
	}
	code, _, stderr = c.run("auth-server", "set", "--metadata-url", r.web, "--system-ca")
	if code != command.Unreachable || !strings.Contains(stderr, "that this machine does not know") {
		t.Errorf("%d %q, want the kept authorities left aside", code, stderr)
	}
	if show := c.ok("auth-server", "show"); !strings.Contains(show, r.ca) {
		t.Errorf("show:\n%s\nwant %s still in it", show, r.ca)
	}
	c.ok("auth-server", "set", "--metadata-url", r.web)
	if file, err := (&app{systemCA: true}).caFile("", &enrolment.AuthServer{CAFile: r.ca}); file != "" || err != nil {
		t.Errorf("the authorities are those in %q, %v; want the system's", file, err)
	}
}

func TestAuthServerRefusesWhatItCannotVerify(t *testing.T) {
	r := newFakeRelay(t)
	other := newFakeRelay(t)
	for _, test := range []struct {
		code int
		want string
		args []string
	}{
		{3, "is signed by an authority that this machine does not know; name its file with --ca", []string{"--metadata-url", r.web}},
		{3, "x509: certificate signed by unknown authority", []string{"--metadata-url", r.web, "--ca", other.ca}},
		{2, "authorities of --ca: open", []string{"--metadata-url", r.web, "--ca", "missing.pem"}},
		{3, "nothing answers at 127.0.0.1:1; check --metadata-url", []string{"--metadata-url", "https://127.0.0.1:1/", "--ca", r.ca}},
		{1, "is where the relay takes counts; its metadata document is at another port", []string{"--metadata-url", "https://" + r.address + "/metadata/json/1", "--ca", r.ca}},
		{1, "that of a relay is /metadata/json/1", []string{"--metadata-url", strings.Replace(r.web, "json/1", "json/2", 1), "--ca", r.ca}},
		{2, "is not an https address", []string{"--metadata-url", "http://relay.example/"}},
		{2, "is for realm fabrikam.com, and --organization is contoso.com", []string{"--metadata-url", r.web, "--organization", "contoso.com"}},
		{2, "add ?realm=<organization> to the address", []string{"--metadata-url", strings.TrimSuffix(r.web, "?realm=fabrikam.com"), "--ca", r.ca}},
		{2, "has a user or a password in it", []string{"--metadata-url", strings.Replace(r.web, "https://", "https://u:secret@", 1), "--ca", r.ca}},
		{2, "--metadata-url is no address", []string{"--metadata-url", "https://u:secret@a b/"}},
		{2, "auth-server set needs --metadata-url", nil},
	} {
		c := newConsole(t)
		code, out, stderr := c.run(append([]string{"auth-server", "set"}, test.args...)...)
		if code != test.code || !strings.Contains(stderr, test.want) {
			t.Errorf("%v: exit code %d, want %d; %q, want %q in it", test.args, code, test.code, stderr, test.want)
		}
		if _, err := os.Stat(c.dir); err == nil || out != "" || strings.Contains(stderr, "secret") {
			t.Errorf("%v: left something in the directory, or printed %q", test.args, out)
		}
	}
}

func TestProxy(t *testing.T) {
	c := newConsole(t)
	c.want(1, "", "badgeagent: the push notification proxy was never enabled in DIR; run 'badgeagent proxy enable --organization ...', or name another directory with --dir\n", "proxy", "show")
	c.want(0, "The push notification proxy was not enabled.\n", "", "proxy", "disable")
	c.want(2, "", "badgeagent: name the organization with --organization, or in $BADGEAGENT_ORGANIZATION\nSee 'badgeagent proxy enable --help'.\n", "proxy", "enable")
	c.want(1, "", "badgeagent: no auth server is set in DIR; run 'badgeagent auth-server set --metadata-url https://...', or name another directory with --dir\n", "proxy", "enable", "--organization", "fabrikam.com")
	c.want(2, "", "badgeagent: --uri is not an https address, without a user or a password in it\nSee 'badgeagent proxy enable --help'.\n", "proxy", "enable", "--organization", "fabrikam.com", "--uri", "ftp://x")
	for _, uri := range []string{"https://localhost:99999", "https://localhost:0", "https://u:secret@localhost"} {
		if code, out, stderr := c.run("proxy", "enable", "--organization", "fabrikam.com", "--uri", uri); code != command.Misused || out != "" || strings.Contains(stderr, "secret") {
			t.Errorf("--uri %s: exit code %d, %q, %q", uri, code, out, stderr)
		}
	}
	c.want(2, "", "badgeagent: \"a b\" is not a domain name of letters from a to z, digits, hyphens and dots; DNS writes other letters with xn--\nSee 'badgeagent proxy enable --help'.\n", "proxy", "enable", "--organization", "a b", "--uri", "https://x")
	uri := "https://relay.example/PushNotifications"
	c.want(0, "Dry run: this would enable the push notification proxy for fabrikam.com, https://relay.example/PushNotifications.\n", "",
		"proxy", "enable", "--organization", "Fabrikam.com", "--uri", uri, "--dry-run")
	c.want(1, "", "badgeagent: the push notification proxy was never enabled in DIR; run 'badgeagent proxy enable --organization ...', or name another directory with --dir\n", "proxy", "show")
	enabled := `DisplayName     : On Premises Proxy app
Enabled         : True
Organization    : fabrikam.com
Uri             : https://relay.example/PushNotifications
Identity        : OnPrem-Proxy
IsValid         : True
ExchangeVersion : 0.20 (15.0.0.0)
Name            : OnPrem-Proxy
Guid            : GUID
WhenChanged     : TIME
WhenCreated     : TIME
WhenChangedUTC  : TIME
WhenCreatedUTC  : TIME
ObjectState     : Unchanged
`
	c.want(0, enabled, "", "proxy", "enable", "--organization", "Fabrikam.com", "--uri", uri)
	first := c.ok("proxy", "show")
	if again := c.ok("proxy", "enable"); again != first {
		t.Errorf("enabled again: %s, want nothing changed: %s", again, first)
	}
	disabled := strings.Replace(enabled, "Enabled         : True", "Enabled         : False", 1)
	c.want(0, "Dry run: this would disable the push notification proxy for fabrikam.com, https://relay.example/PushNotifications.\n", "", "proxy", "disable", "--dry-run")
	c.want(0, disabled, "", "proxy", "disable")
	c.want(0, disabled, "", "proxy", "show")
	var object map[string]any
	must(t, json.Unmarshal([]byte(c.ok("proxy", "show", "--output", "json")), &object))
	if object["enabled"] != false || object["organization"] != "fabrikam.com" || object["objectState"] != "Unchanged" {
		t.Errorf("show in JSON: %v", object)
	}
	code, _, stderr := c.run("publish", "ann=1")
	if code != command.Misused || !strings.Contains(stderr, "the push notification proxy is disabled") {
		t.Errorf("publish with the proxy off: %d %q", code, stderr)
	}
}

// TestRealmOfAnotherOrganization: its tokens would be refused, so it is told at
// once.
func TestRealmOfAnotherOrganization(t *testing.T) {
	c, r := enrolled(t)
	want := "badgeagent: the metadata document of https://ADDRESS/metadata/json/1?realm=fabrikam.com is for fabrikam.com, and the organization is contoso.com; " +
		"run 'badgeagent auth-server set' with the organization's realm in the address\n"
	c.want(2, "", want, "proxy", "enable", "--organization", "contoso.com")
	fresh := newConsole(t)
	fresh.ok("cert", "ensure", "--organization", "contoso.com")
	fresh.ok("proxy", "enable", "--organization", "contoso.com", "--uri", "https://relay.example")
	if code, _, stderr := fresh.run("auth-server", "set", "--metadata-url", r.web, "--ca", r.ca); code != 0 || !strings.Contains(stderr, "is that of contoso.com") {
		t.Errorf("auth-server set = %d, %q", code, stderr)
	}
	fresh.want(2, "", want, "publish", "ann=1")
}

func TestMisuse(t *testing.T) {
	c := newConsole(t)
	for _, test := range []struct {
		want string
		args []string
	}{
		{`unknown command "publsh"`, []string{"publsh"}},
		{"unknown flag: --speed", []string{"probe", "--speed"}},
		{`--output is "xml": it is text or json`, []string{"version", "--output", "xml"}},
		{"--dir is empty", []string{"proxy", "show", "--dir", ""}},
		{"needs one of its commands", []string{"cert"}},
		{"cert ensure needs --organization or --domain", []string{"cert", "ensure"}},
		{"subscription add needs --app and --device-token", []string{"subscription", "add", "--mailbox", "ann"}},
		{`cert show takes no argument, and got "x"`, []string{"cert", "show", "x"}},
	} {
		code, out, stderr := c.run(test.args...)
		if code != command.Misused || out != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("%v: exit code %d, want 2; %q, want %q in it", test.args, code, stderr, test.want)
		}
	}
}

func TestDirectoryThatCannotBe(t *testing.T) {
	c := newConsole(t)
	must(t, os.WriteFile(c.dir, nil, 0o600)) // a file in its place
	for _, args := range [][]string{{"cert", "ensure", "--organization", "fabrikam.com"}, {"proxy", "enable", "--organization", "fabrikam.com", "--uri", "https://x"}} {
		code, _, stderr := c.run(args...)
		if code != command.Misused || !strings.Contains(stderr, c.dir) {
			t.Errorf("%v: exit code %d, want 2; %q, want the directory named", args, code, stderr)
		}
	}
	c = newConsole(t)
	must(t, os.MkdirAll(c.dir, 0o700))
	must(t, os.WriteFile(filepath.Join(c.dir, "proxy.json"), []byte("{"), 0o600))
	code, _, stderr := c.run("proxy", "show")
	if code != command.Failed || !strings.Contains(stderr, "proxy.json") {
		t.Errorf("broken file: exit code %d, want 1; %q, want its name", code, stderr)
	}
}

func TestHelpAndVersion(t *testing.T) {
	c := newConsole(t)
	if help := c.ok("--help"); !strings.Contains(help, "Exit codes: 0 done; 1 failed") {
		t.Errorf("help does not document exit codes:\n%s", help)
	}
	if v := c.ok("version"); !strings.HasPrefix(v, "badgeagent ") {
		t.Errorf("version prints %q", v)
	}
	if s := c.ok("completion", "bash"); !strings.Contains(s, "bash completion") {
		t.Errorf("completion prints %.80q", s)
	}
}

// TestToken prints a token for another program, alone and with what belongs to it.
func TestToken(t *testing.T) {
	c, r := enrolled(t)
	token := strings.TrimSuffix(c.ok("token"), "\n")
	if strings.Count(token, ".") != 2 || strings.ContainsAny(token, " \n") {
		t.Errorf("token prints %q", token)
	}
	var line tokenLine
	must(t, json.Unmarshal([]byte(c.ok("token", "--lifetime", "10m", "--output", "json")), &line))
	if left := time.Until(line.ExpiresAt); left > 10*time.Minute || left < 9*time.Minute || line.Relays[0] != r.address || !strings.HasSuffix(line.Audience, "@fabrikam.com") {
		t.Errorf("in JSON: %+v", line)
	}
	c.want(2, "", "badgeagent: --lifetime is 48h0m0s, and at most 24h0m0s\nSee 'badgeagent token --help'.\n", "token", "--lifetime", "48h")
	if code, _, text := newConsole(t).run("token"); code != command.Misused || !strings.Contains(text, "proxy enable") {
		t.Errorf("before the set-up: %d %q", code, text)
	}
}
