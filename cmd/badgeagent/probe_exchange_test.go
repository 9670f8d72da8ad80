package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"badgerelay/relay/agent/ews/ewstest"

	"badgerelay/cmd/internal/command"
)

func TestProbeOfExchange(t *testing.T) {
	t.Parallel()
	c, _ := enrolled(t)
	dir := t.TempDir()
	file, password, ca := filepath.Join(dir, "badgeagent.yaml"), filepath.Join(dir, "password"), filepath.Join(dir, "ca.pem")
	const ann, account = "ann@fabrikam.com", `FABRIKAM\badgeagent`
	probe := []string{"--app", "mail", "--mailbox", ann, "--config", file}
	write := func(yaml, secret string) {
		t.Helper()
		must(t, os.WriteFile(file, []byte("ews: {"+yaml+`, user: 'FABRIKAM\badgeagent', password_file: `+password+"}\n"), 0o600))
		must(t, os.WriteFile(password, []byte(secret+"\n"), 0o600))
	}
	// at starts an Exchange and points the configuration at it.
	at := func(config ewstest.Config, secret, settings string) *ewstest.Server {
		t.Helper()
		config.TLS, config.User, config.Password, config.Mailboxes = true, account, "right", []string{ann}
		server, err := ewstest.New(config)
		must(t, err)
		must(t, server.Start())
		t.Cleanup(server.Stop)
		must(t, os.WriteFile(ca, server.CA(), 0o600))
		write(fmt.Sprintf("url: %q, ca_file: %s%s", server.URL(), ca, settings), secret)
		return server
	}

	write("url: 'https://127.0.0.1:1/EWS/Exchange.asmx'", "x")
	c.fails("Mail server", "Exchange can't be reached; check ews.url and ews.ca_file", probe...)
	c.warns("Mail server", "give a mailbox with --mailbox", "--app", "mail", "--config", file)
	write("autodiscover: 'https://127.0.0.1:1/autodiscover/autodiscover.svc'", "x")
	c.fails("Mail server", "check ews.autodiscover, or set ews.url", probe...)

	ntlm := []string{"NTLM", "Negotiate"}
	at(ewstest.Config{Schemes: ntlm}, "wrong", "")
	c.fails("Mail server", "the server refuses the login. Check user, password and whether the account is locked", probe...)
	at(ewstest.Config{Schemes: ntlm, ExtendedProtection: "Require"}, "right", "")
	c.fails("Mail server", "ExtendedProtectionTokenChecking: Require), which badgeagent can't do with NTLM", probe...)
	at(ewstest.Config{Schemes: ntlm}, "right", ", authentication: basic")
	c.fails("Mail server", "the server offers NTLM, Negotiate; set ews.authentication to one of them", probe...)
	at(ewstest.Config{Schemes: []string{"Basic"}}, "wrong", ", authentication: basic")
	c.fails("Mail server", "user and password are wrong", probe...)
	at(ewstest.Config{Schemes: ntlm, NoImpersonation: true}, "right", "")
	c.fails("Mail server", "give it the role ApplicationImpersonation", probe...)
	at(ewstest.Config{Schemes: ntlm, NoDelegation: true}, "right", ", access: delegate")
	c.fails("Mail server", "Add-MailboxFolderPermission", probe...)
	c.fails("Mail server", "Exchange has no mailbox with that SMTP address", "--app", "mail", "--mailbox", "nobody@fabrikam.com", "--config", file)
	server := at(ewstest.Config{Schemes: ntlm}, "right", ", folders: [inbox, inbox/Orders]")
	c.fails("Mail server", `it has no folder "inbox/Orders"`, probe...)
	write(fmt.Sprintf("url: %q, ca_file: %s", strings.Replace(server.URL(), "Exchange.asmx", "Exchange.asp", 1), ca), "right")
	c.fails("Mail server", "the address is not that of Exchange Web Services", probe...)
	at(ewstest.Config{Schemes: ntlm, Subscriptions: -1}, "right", "")
	c.fails("Mail server", "the mailbox can be counted and not subscribed to", probe...)
	at(ewstest.Config{Schemes: ntlm, Streams: -1}, "right", "")
	c.fails("Mail server", "a subscription could be made, and is not heard", probe...)

	for _, settings := range []string{"", ", authentication: basic", ", access: delegate"} {
		server := at(ewstest.Config{Schemes: []string{"Basic", "NTLM", "Negotiate"}}, "right", settings)
		server.Deliver(ann)
		code, out := c.probe(probe...)
		s := mailServer(&out)
		if code != 0 || s.ResultType != command.Succeeded {
			t.Errorf("%s: probe: %d %+v", settings, code, s)
		}
		for _, want := range []string{server.URL() + " offers Basic, NTLM, Negotiate and took ", "mailbox ann@fabrikam.com has 1 unread; a subscription was made and heard"} {
			if !strings.Contains(s.Detail, want) {
				t.Errorf("%s: the probe says %q, want %q", settings, s.Detail, want)
			}
		}
		if v := server.Violations(); v != nil {
			t.Errorf("%s: the simulated Exchange holds against the probe: %q", settings, v)
		}
		if n := server.Stats().Requests["Unsubscribe"]; n != 1 {
			t.Errorf("%s: the probe ended %d subscriptions, want its own", settings, n)
		}
	}
	server = at(ewstest.Config{Schemes: ntlm}, "right", "")
	write(fmt.Sprintf("autodiscover: %q, ca_file: %s", server.DiscoverURL(), ca), "right")
	if code, out := c.probe(probe...); code != 0 || !strings.HasPrefix(mailServer(&out).Detail, server.URL()) {
		t.Errorf("by autodiscover: %d %+v", code, mailServer(&out))
	}
}
