package main

import (
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"
)

// TestOddMailboxesCanBeNamed imports mailboxes that 'subscription add' takes for slips:
// who finds one looks at it, and removes it.
func TestOddMailboxesCanBeNamed(t *testing.T) {
	f := newFiles(t)
	_, app := apple(t, f)
	s := serve(t, f.base(t, app))
	at := func(args ...string) []string { return append(args, "--admin", s.Admin) }
	want(t, command.Done, "", at("organization", "add", "fabrikam.com")...)
	token := strings.Repeat("ab", 32)
	for mailbox, shown := range map[string]string{
		"\u202ered@fabrikam.com": `\u202ered@fabrikam.com`, " ann@fabrikam.com": " ann@fabrikam.com", "a@fabrikam.com, b@fabrikam.com": "a@fabrikam.com, b@fabrikam.com",
	} {
		code, out := executeWith(t, `{"mailbox": "`+mailbox+`", "app": "mail", "deviceToken": "`+token+`"}`,
			at("subscription", "import", "--organization", "fabrikam.com")...)
		if code != command.Done || !strings.Contains(out, "1 created") {
			t.Errorf("import of %q = %d, %s", mailbox, code, out)
		}
		device := []string{"fabrikam.com", "--mailbox", mailbox, "--app", "mail", "--device-token", token}
		if strings.TrimLeft(mailbox, "\u202e") == mailbox {
			want(t, command.Misused, "", at(append([]string{"subscription", "add"}, device...)...)...)
		}
		want(t, command.Done, token, at("subscription", "list", "fabrikam.com", "--mailbox", mailbox)...)
		want(t, command.Done, shown, at("mailbox", "show", "fabrikam.com", mailbox)...)
		want(t, command.Done, "Dry run: this would take the device off", at(append([]string{"subscription", "remove", "--dry-run"}, device...)...)...)
		out = want(t, command.Done, "The device is not on "+shown, at(append([]string{"subscription", "remove"}, device...)...)...)
		if strings.Contains(out, "\u202e") {
			t.Errorf("a terminal obeys %q", out)
		}
	}
	csv := "mailbox,app,device_token\nann@fabrikam.com,mail," + token + "\n\x1b[31mred@fabrikam.com,mail," + token + "\nann@fabrikam.com,ma\x00il," + token + "\n"
	code, out := executeWith(t, csv, at("subscription", "import", "--organization", "fabrikam.com")...)
	if want := "1 created, 0 renewed, 2 refused.\n  line 3: mailbox: has a control character in it\n  line 4: app: \"ma\\x00il\" has a control character in it"; code != command.Failed || !strings.Contains(out, want) {
		t.Errorf("import of control characters = %d, %s; want %s", code, out, want)
	}
}
