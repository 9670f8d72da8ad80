package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"badgerelay/cmd/internal/configfile"
)

func TestWhatIsWrongWithExchangeIsNamed(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	const url = "url: https://mail.fabrikam.com/EWS/Exchange.asmx, "
	login := `user: FABRIKAM\badgeagent, password_file: ` + secret
	for section, want := range map[string][]string{
		url + login:                            nil,
		"autodiscover: fabrikam.com, " + login: nil,
		"autodiscover: 'https://autodiscover.fabrikam.com/autodiscover/autodiscover.svc', " + login: nil,
		"url: 'http://127.0.0.1:8080/EWS/Exchange.asmx', authentication: basic, " + login:           nil,
		url + "user: badgeagent@FABRIKAM.COM, keytab_file: " + secret:                               nil,
		url + login + ", folders: [inbox, inbox/Orders, Projects], access: delegate":                nil,
		login: {"ews.url: is required, or ews.autodiscover"},
		url + "autodiscover: fabrikam.com, " + login:                  {"ews: url and autodiscover exclude each other"},
		"url: 'http://mail.fabrikam.com/EWS/Exchange.asmx', " + login: {"ews.url: http is for loopback only"},
		"url: mail.fabrikam.com, " + login:                            {`ews.url: "mail.fabrikam.com" is not a URL`},
		"url: 'https://a:b@mail.fabrikam.com/', " + login:             {"ews.url: the URL holds credentials"},
		"autodiscover: ann@fabrikam.com, " + login:                    {`ews.autodiscover: "ann@fabrikam.com" is neither`},
		url + "user: a":                                                      {"ews.password_file: is required"},
		url + "password_file: " + secret:                                     {"ews.user: is required with ntlm"},
		url + "keytab_file: " + secret + ", user: badgeagent":                {`ews.user: "badgeagent" is not a principal`},
		url + "keytab_file: " + secret + ", user: a@fabrikam.com":            {`ews.user: "a@fabrikam.com" is not a principal`},
		url + "authentication: negotiate, user: a@B.C":                       {"ews.keytab_file: is required"},
		url + "authentication: basic, keytab_file: " + secret + ", " + login: {"ews.keytab_file: belongs to ews.authentication negotiate, which is basic"},
		url + "authentication: kerberos, " + login:                           {`ews.authentication: "kerberos" is not one of ntlm, basic, negotiate, windows`, "ews.password_file: belongs to"},
		url + "authentication: windows":                                      {"ews.authentication: windows is for Windows only"},
		url + "service_principal: HTTP/mail, " + login:                       {"ews.service_principal: belongs to"},
		url + "access: owner, " + login:                                      {`ews.access: "owner" is not one of impersonation, delegate`},
		url + "mailboxes_per_stream: 201, " + login:                          {"ews.mailboxes_per_stream: 201 is outside 1 to 200"},
		url + "max_requests: 28, " + login:                                   {"ews.max_requests: 28 is outside 1 to 27"},
		url + "poll_interval: 1ms, " + login:                                 {"ews.poll_interval: 1ms is outside"},
		url + "folders: ['', Inbox, inbox, a//b], " + login:                  {`ews.folders[0]: "" is not a folder's name`, `ews.folders[2]: "inbox" is there twice`, `ews.folders[3]: "a//b" is not`},
		url + "ca_file: /nowhere, " + login:                                  {"ews.ca_file: "},
		url + "pasword_file: x, " + login:                                    {`ews.pasword_file: unknown key; did you mean "password_file"?`},
	} {
		path := filepath.Join(dir, "c.yaml")
		if err := os.WriteFile(path, []byte("ews: {"+section+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, warnings, err := Load(path)
		got := configfile.Problems(err)
		if len(got) != len(want) || len(warnings) > 0 {
			t.Errorf("%s: %v, warnings %v; want %q", section, err, warnings, want)
			continue
		}
		for n, w := range want {
			if !strings.Contains(got[n].Error(), ":1: "+w) {
				t.Errorf("%s: problem %d is %q, want %q on line 1", section, n, got[n], w)
			}
		}
	}
}
