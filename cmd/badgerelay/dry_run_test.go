package main

import (
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"
)

// TestDryRunRefusesWhatTheCommandRefuses tries each command that is refused as a dry run
// and then for real: both say the same, in as far as they end so, and nothing is changed.
func TestDryRunRefusesWhatTheCommandRefuses(t *testing.T) {
	f := newFiles(t)
	_, app := apple(t, f)
	s := serve(t, f.base(t, app))
	at := func(args ...string) []string { return append(args, "--admin", s.Admin) }
	_, certificate := newIssuerOf(t, f, "fabrikam.com", "a.cer")
	_, other := newIssuerOf(t, f, "fabrikam.com", "b.cer")
	_, kept := newIssuerOf(t, f, "narrow.com", "c.cer")
	here, there := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	device := func(verb, mailbox, app, token string, more ...string) []string {
		return append([]string{"subscription", verb, "fabrikam.com", "--mailbox", mailbox, "--app", app, "--device-token", token}, more...)
	}
	full := func(mailbox, token string) []string {
		return []string{"subscription", "add", "full.com", "--mailbox", mailbox, "--app", "mail", "--device-token", token}
	}
	for _, args := range [][]string{
		{"organization", "add", "fabrikam.com", "--max-subscriptions", "2", "--max-mailboxes", "1"}, {"organization", "add", "lim.com"},
		{"organization", "add", "narrow.com", "--apps", "mail"},
		{"organization", "disable", "lim.com"}, {"organization", "remove", "lim.com", "--yes"},
		{"credential", "add", "fabrikam.com", "--certificate", certificate, "--force"},
		{"credential", "add", "narrow.com", "--certificate", kept, "--force"},
		device("add", "ann@fabrikam.com", "mail", here),
		{"organization", "add", "full.com", "--max-mailboxes", "1"}, full("ann@full.com", here), full("ann@full.com", there),
	} {
		want(t, command.Done, "", at(args...)...)
	}
	for _, args := range [][]string{
		{"organization", "add", "fabrikam.com"}, {"organization", "add", "Fabrikam.COM"}, {"organization", "add", "lim.com"}, {"organization", "add", ""},
		{"organization", "add", "x.com", "--apps", "nosuch"}, {"organization", "add", "x.com", "--metadata-url", "http://x"},
		{"organization", "update", "fabrikam.com", "--apps", "nosuch"}, {"organization", "update", "fabrikam.com", "--metadata-url", "http://x"},
		{"organization", "update", "lim.com", "--apps", "mail"}, {"organization", "enable", "lim.com"}, {"organization", "disable", "nope.com"},
		{"organization", "remove", "lim.com", "--yes"}, {"organization", "remove", "", "--yes"}, {"organization", "remove", "fabrikam.com", "--yes"},
		{"organization", "purge", "fabrikam.com", "--yes"}, {"organization", "purge", "nope.com", "--yes"}, {"organization", "purge", "", "--yes"},
		{"organization", "restore", "nope.com"}, {"organization", "restore", "fabrikam.com"}, {"organization", "restore", ""},
		{"credential", "add", "fabrikam.com", "--certificate", certificate, "--force"}, {"credential", "add", "narrow.com", "--certificate", certificate, "--force"},
		{"credential", "add", "fabrikam.com", "--certificate", other, "--force", "--end", "2020-01-01"}, {"credential", "add", "nope.com", "--certificate", other, "--force"},
		{"credential", "remove", "--organization", "fabrikam.com", "00"},
		device("add", "ann@fabrikam.com", "nosuch", here), device("add", "ann@fabrikam.com", "mail", "xyz"),
		device("add", "bob@fabrikam.com", "mail", there), device("add", "bob@fabrikam.com", "mail", here, "--keep-others"),
		device("remove", "ann@fabrikam.com", "mail", "xyz"),
		full("bob@full.com", here), // ann keeps the other device
	} {
		code, out := execute(t, at(append(args, "--dry-run")...)...)
		really, says := execute(t, at(args...)...)
		if code == command.Done || code != really || out != says {
			t.Errorf("%s\n dry: %d %s\nreal: %d %s", strings.Join(args, " "), code, out, really, says)
		}
	}
	for _, args := range [][]string{
		{"organization", "add", "x.com", "--apps", "mail", "--metadata-url", "https://x.com/"}, {"organization", "update", "fabrikam.com", "--apps", "mail"},
		{"organization", "restore", "LIM.com"}, {"organization", "purge", "lim.com"}, {"credential", "add", "fabrikam.com", "--certificate", other, "--force"},
		device("add", "ann@fabrikam.com", "mail", here), device("add", "bob@fabrikam.com", "mail", here), device("add", "ann@fabrikam.com", "mail", there),
		device("remove", "ann@fabrikam.com", "mail", strings.ToUpper(here)),
		device("remove", "ann@fabrikam.com", "nosuch", here), device("remove", "ann@fabrikam.com", "mail", there),
	} {
		want(t, command.Done, "Dry run: this would", at(append(args, "--dry-run")...)...)
	}
	csv := f.write(t, "devices.csv", "ann@fabrikam.com,mail,"+there+"\nbob@fabrikam.com,mail,"+strings.Repeat("ef", 32)+"\nann@fabrikam.com,nosuch,"+there+"\n")
	would := want(t, command.Failed, "this would import into fabrikam.com: 1 created, 0 renewed, 2 refused.\n  line 2", at("subscription", "import", "--organization", "fabrikam.com", csv, "--dry-run")...)
	_, did := execute(t, at("subscription", "import", "--organization", "fabrikam.com", csv)...)
	if _, refused, _ := strings.Cut(did, "refused."); !strings.HasSuffix(would, refused) {
		t.Errorf("an import says %s\nand its dry run %s", did, would)
	}
	bad := f.write(t, "bad.csv", "ann@fabrikam.com,mail\n")
	out := want(t, command.Misused, "line 1 has 2 columns", at("subscription", "import", "--organization", "fabrikam.com", bad, "--dry-run")...)
	if strings.Contains(out, "registered") {
		t.Errorf("an import's dry run says %s", out)
	}
	want(t, command.Misused, "line 1 has 2 columns, and 3 are needed, with a comma between them; nothing was imported", at("subscription", "import", "--organization", "fabrikam.com", bad)...)
}

// TestRemovedOrganizationsAreNamed has an operator name an organization as if it was
// live, or removed, where it is the other.
func TestRemovedOrganizationsAreNamed(t *testing.T) {
	f := newFiles(t)
	s := serve(t, f.base(t, ""))
	at := func(args ...string) []string { return append(args, "--admin", s.Admin) }
	for _, args := range [][]string{
		{"organization", "add", "lim.com"}, {"organization", "add", "lim3.com"}, {"organization", "disable", "lim.com"},
		{"organization", "remove", "lim.com", "--yes"},
	} {
		want(t, command.Done, "", at(args...)...)
	}
	for _, args := range [][]string{{"organization", "show", "lim.com"}, {"organization", "enable", "lim.com"}, {"credential", "list", "--organization", "Lim.com"}} {
		want(t, command.Failed, "; it was removed, and 'badgerelay organization restore lim.com' brings it back", at(args...)...)
	}
	for _, args := range [][]string{
		{"organization", "purge", "lim3.com", "--yes"}, {"organization", "purge", "lim3.com"}, {"organization", "restore", "lim3.com"},
	} {
		want(t, command.Failed, "organization lim3.com is live, and was not removed", at(args...)...)
	}
	want(t, command.Failed, "there is no organization lim2.com (ORGANIZATION_NOT_FOUND)", at("organization", "purge", "lim2.com")...)
	want(t, command.Misused, "this would forget lim.com for good, and can't be undone; --yes does it", at("organization", "purge", "lim.com")...)
	want(t, command.Done, "Nothing of organization lim.com is kept", at("organization", "purge", "lim.com", "--yes")...)
}
