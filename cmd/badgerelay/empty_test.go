package main

import (
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"
)

// TestEmptyFlags has a shell variable that is not set take the place of what narrows a
// command down, or limits an organization.
func TestEmptyFlags(t *testing.T) {
	f := newFiles(t)
	_, app := apple(t, f)
	s := serve(t, f.base(t, app))
	at := func(args ...string) []string { return append(args, "--admin", s.Admin) }
	want(t, command.Done, "is enrolled", at("organization", "add", "fabrikam.com", "--apps", "mail", "--metadata-url", "https://fabrikam.com/metadata")...)
	for flag, args := range map[string][]string{
		"--organization": {"subscription", "restore", "--organization", "", "--since", "6h"},
		"--reason":       {"subscription", "restore", "--organization", "fabrikam.com", "--reason="},
		"--until":        {"subscription", "restore", "--organization", "fabrikam.com", "--until="},
		"--mailbox":      {"subscription", "list", "fabrikam.com", "--mailbox", ""},
		"--app":          {"probe", "--app", ""},
		"--certificate":  {"credential", "add", "fabrikam.com", "--certificate", ""},
		"--end":          {"credential", "add", "fabrikam.com", "--certificate", "any.cer", "--end", ""},
		"--apps":         {"organization", "add", "contoso.com", "--apps", ""},
		"--config":       {"organization", "list", "--config", ""},
		"--metadata-url": {"organization", "update", "fabrikam.com", "--metadata-url", ""},
	} {
		want(t, command.Misused, "badgerelay: "+flag+" is empty", at(args...)...)
	}
	want(t, command.Misused, "badgerelay: --apps is empty", at("organization", "update", "fabrikam.com", "--apps", "")...)
	want(t, command.Misused, "organization update takes one of --apps and --all-apps", at("organization", "update", "fabrikam.com", "--apps", "mail", "--all-apps")...)
	out := want(t, command.Done, "Apps             : mail", at("organization", "update", "fabrikam.com", "--max-streams", "3")...)
	if !strings.Contains(out, "https://fabrikam.com") {
		t.Errorf("an update of something else shows %s", out)
	}
	out = want(t, command.Done, "", at("organization", "update", "fabrikam.com", "--all-apps", "--no-metadata-url")...)
	if !strings.Contains(out, "Apps             : all") || strings.Contains(out, "https://fabrikam.com") {
		t.Errorf("an update that takes the limit and the address away shows %s", out)
	}
}
