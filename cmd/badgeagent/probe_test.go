package main

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"badgerelay/auth/authtest"
	"badgerelay/auth/certs"
	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent/imap/imaptest"
)

// probe runs the probe and returns what it printed as JSON.
func (c *console) probe(args ...string) (int, command.Probe) {
	c.t.Helper()
	if !slices.Contains(args, "--timeout") {
		args = append(args, "--timeout", "20s")
	}
	code, text, stderr := c.run(append([]string{"probe", "--output", "json"}, args...)...)
	var out command.Probe
	if err := json.Unmarshal([]byte(text), &out); err != nil || stderr != "" {
		c.t.Fatalf("probe %v: %v in %q, %q", args, err, text, stderr)
	}
	return code, out
}

// fails probes, and wants a stage to be the first that fails, with an advice.
func (c *console) fails(stage, advice string, args ...string) {
	c.t.Helper()
	want := map[string]int{
		"Configuration": command.Misused, "Name resolution": command.Unreachable, "TCP": command.Unreachable, "TLS": command.Unreachable,
	}
	code, out := c.probe(args...)
	if code != cmp.Or(want[stage], command.Failed) || out.ResultType != command.Broken || !strings.HasPrefix(out.Error, stage+": ") || !strings.Contains(out.Error, advice) || out.Exception == "" {
		c.t.Errorf("probe %v: %d %+v, want stage %s, with %q", args, code, out, stage, advice)
	}
	seen := false
	for _, s := range out.Stages {
		if seen != (s.ResultType == command.Skipped) {
			c.t.Errorf("probe %v: stage %s is %s", args, s.Name, s.ResultType)
		}
		seen = seen || s.Name == stage
	}
}

// warns probes, and wants the whole to succeed with a stage that warns.
func (c *console) warns(stage, text string, args ...string) {
	c.t.Helper()
	code, out := c.probe(args...)
	for _, s := range out.Stages {
		if s.Name == stage && (s.ResultType != command.Warning || !strings.Contains(s.Detail, text)) || code != 0 {
			c.t.Errorf("probe %v: %d, stage %+v, want a warning with %q", args, code, s, text)
		}
	}
}

// mailServer returns what came of the stage of mail servers.
func mailServer(r *command.Probe) command.Stage {
	for _, s := range r.Stages {
		if s.Name == "Mail server" {
			return s
		}
	}
	return command.Stage{}
}

func TestProbeNamesTheStageThatFails(t *testing.T) {
	c, r := enrolled(t)
	other := newFakeRelay(t)
	stranger := newConsole(t)
	stranger.ok("cert", "ensure", "--organization", testRealm)
	stranger.run("auth-server", "set", "--metadata-url", r.web, "--ca", r.ca) // warns that the relay knows no such key
	stranger.ok("proxy", "enable", "--organization", testRealm)
	empty := newConsole(t)
	empty.fails("Configuration", "run 'badgeagent cert ensure")
	c.fails("Name resolution", "there is no host of the name in no.such.name.invalid:443; check the relay's address", "--relay", "no.such.name.invalid:443")
	quiet, plain := silent(t), httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	c.fails("TLS", "no relay answers at "+quiet+"; check the address", "--relay", quiet, "--timeout", "500ms")
	c.fails("TLS", "is no relay; check the port of --relay", "--relay", plain.Listener.Addr().String())
	c.fails("TCP", "no relay listens at 127.0.0.1:1", "--relay", "127.0.0.1:1")
	c.fails("TLS", "signed by none of the authorities in "+other.ca, "--ca", other.ca)
	stranger.fails("Token", "have its operator register the exported certificate")
	const missing = "not counted: there is no configuration; name it with --config"
	c.warns("Mail server", "mailbox ann@fabrikam.com is "+missing, "--mailbox", "ann@fabrikam.com")
	if _, out := c.probe(); mailServer(&out).ResultType != command.Skipped || mailServer(&out).Detail != missing {
		t.Errorf("without a configuration: %+v", mailServer(&out))
	}
	c.fails("Organization", "older than the relay supports", "--product", "Exchange", "--product-version", "15.0.1")
	r.mu.Lock()
	r.endpoint = "https://127.0.0.1:2"
	r.mu.Unlock()
	code, text, _ := c.run("probe")
	if code != 0 || !strings.Contains(text, "Metadata          Warning") || !strings.Contains(text, "ResultType : Succeeded") {
		t.Errorf("probe after the relays have changed: %d %s, want a warning", code, text)
	}
	r.disable()
	c.fails("Organization", "the relay's operator has disabled fabrikam.com")
}

// replaceCertificate puts another certificate of the same key in the place of
// the current one.
func (c *console) replaceCertificate(notBefore, notAfter time.Time) {
	c.t.Helper()
	dir := filepath.Join(c.dir, "certificates")
	store, err := certs.OpenStore(dir)
	must(c.t, err)
	key := authtest.NewKeyValid(testRealm, notBefore, notAfter)
	state, err := store.State()
	must(c.t, err)
	state.Current.Thumbprint = certs.Thumbprint(key.Certificate)
	data, err := json.Marshal(state)
	must(c.t, err)
	for name, content := range map[string][]byte{
		state.Current.Thumbprint + ".cer": key.Certificate.Raw, "state.json": data,
		state.Current.Thumbprint + ".key": authtest.KeyPEM(key.Private),
	} {
		must(c.t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
}

func TestProbeOfTheCertificate(t *testing.T) {
	c, r := enrolled(t)
	now := time.Now()
	c.replaceCertificate(now.Add(-48*time.Hour), now.Add(-time.Hour))
	c.fails("Certificate", "make a new one with 'badgeagent cert ensure'")
	c.replaceCertificate(now.Add(time.Hour), now.Add(48*time.Hour))
	c.fails("Certificate", "valid from")
	c.replaceCertificate(now.Add(-time.Hour), now.Add(29*24*time.Hour))
	c.ok("cert", "export")
	r.enrol(filepath.Join(c.dir, exportName))
	c.warns("Certificate", "roll over with 'badgeagent cert stage'")
}

func TestProbeOfTheRelaysSide(t *testing.T) {
	c, r := enrolled(t)
	set := func(f func()) {
		r.mu.Lock()
		defer r.mu.Unlock()
		f()
	}
	set(func() { r.ahead = 2 * time.Hour })
	c.fails("Clock", "behind the relay's; set it, and keep it set with NTP")
	set(func() { r.ahead = -time.Minute })
	c.warns("Clock", "ahead of the relay's; keep it set with NTP")
	set(func() { r.ahead, r.authority = 0, "elsewhere.test" })
	c.fails("Metadata", "run 'badgeagent auth-server set' again")
	set(func() { r.authority, r.unlisted = "relay.test", true })
	c.fails("Subscriptions", "the relay has a problem of its own")
	set(func() { r.unlisted = false })
	c.warns("APNs", "give the app's name with --app")
	set(func() { r.ill = true })
	c.fails("APNs", "the relay's app mail is misconfigured: its operator has to act", "--app", "mail")
	set(func() {
		r.ill = false
		if len(r.devices) > 0 {
			t.Errorf("the probe left %v behind", r.devices)
		}
	})
	for apple, advice := range map[string]string{
		"":                       "the relay's way to Apple does not work for app mail",
		"DeviceTokenNotForTopic": "Apple does not accept app mail from the relay",
		"accepted":               "something else than Apple seems to answer",
	} {
		set(func() { r.apple = apple })
		c.fails("APNs", advice, "--app", "mail")
		set(func() {
			if len(r.devices) > 0 {
				t.Errorf("the probe left %v behind", r.devices)
			}
		})
	}
}

func TestProbeOfTheMailServer(t *testing.T) {
	t.Parallel() // Dovecot answers a wrong password slowly
	c, _ := enrolled(t)
	file := filepath.Join(t.TempDir(), "badgeagent.yaml")
	password := filepath.Join(t.TempDir(), "password")
	write := func(yaml, secret string) {
		t.Helper()
		must(t, os.WriteFile(file, []byte(yaml), 0o600))
		must(t, os.WriteFile(password, []byte(secret+"\n"), 0o600))
	}
	imap := func(address string) string {
		return "imap: {address: \"" + address + "\", security: none, master_user: " + imaptest.Master + ", master_password_file: " + password + "}\n"
	}
	probe := []string{"--app", "mail", "--mailbox", "ann", "--config", file}
	write("imap: {host: x}\n", "")
	c.fails("Configuration", "'badgeagent config check' says where", probe...)
	write(imap("127.0.0.1:1"), "x")
	c.fails("Mail server", "does not answer as it should; check imap.address", probe...)
	c.warns("Mail server", "give a mailbox with --mailbox", "--app", "mail", "--config", file)
	write("dovecot: {enabled: true}\nlocal: {socket: "+filepath.Join(t.TempDir(), "local.sock")+"}\n", "")
	c.fails("Mail server", "is 'badgeagent serve' up?", probe...)

	d := imaptest.Run(t, imaptest.Config{})
	write(imap(d.IMAP), "wrong")
	c.fails("Mail server", "refuses to show mailbox ann; check imap.master_user", probe...)
	folders := func(list string) string { return strings.Replace(imap(d.IMAP), "}", ", folders: ["+list+"]}", 1) }
	write(folders("Gone"), imaptest.MasterPassword)
	c.fails("Mail server", "a folder of imap.folders is not shown", probe...)
	write(folders("INBOX, Gone"), imaptest.MasterPassword)
	c.warns("Mail server", `it has no folder ["Gone"]; the others are counted`, probe...)
	write("mailboxes: {suffix: \"@fabrikam.com\"}\n"+imap(d.IMAP), imaptest.MasterPassword)
	c.fails("Mail server", "check mailboxes.suffix", probe...)
	write(imap(d.IMAP), imaptest.MasterPassword)
	must(t, d.Deliver("ann", "hello"))
	code, out := c.probe(probe...)
	if s := mailServer(&out); code != 0 || s.ResultType != command.Succeeded || !strings.Contains(s.Detail, "has 1 unread, and is watched by IDLE") {
		t.Errorf("probe: %d %+v, want one unread", code, s)
	}
}
