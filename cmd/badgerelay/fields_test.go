package main

import (
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"
)

// TestRefusedFieldsAreNamedAsGiven has the relay refuse fields of a request: people gave
// flags and arguments, and are told of these, with their values.
func TestRefusedFieldsAreNamedAsGiven(t *testing.T) {
	f := newFiles(t)
	_, app := apple(t, f)
	s := serve(t, f.base(t, app))
	at := func(args ...string) []string { return append(args, "--admin", s.Admin) }
	want(t, command.Done, "", at("organization", "add", "fabrikam.com")...)
	_, certificate := newIssuerOf(t, f, "fabrikam.com", "a.cer")
	for says, args := range map[string][]string{
		`"not_a_domain!" is not a domain name`:                       {"organization", "add", "not_a_domain!"},
		`"two words" is not a domain name`:                           {"organization", "show", "two words"},
		`--organization "two words" is not a domain name`:            {"credential", "list", "--organization", "two words"},
		`--metadata-url "http://x" is not an https address`:          {"organization", "add", "x.com", "--metadata-url", "http://x"},
		`--device-token "xyz" `:                                      {"subscription", "add", "fabrikam.com", "--mailbox", "a@fabrikam.com", "--app", "mail", "--device-token", "xyz"},
		`--end "2020-01-01" is not after the start, `:                {"credential", "add", "fabrikam.com", "--certificate", certificate, "--end", "2020-01-01"},
		`--start "2001-01-01" is before the certificate's NotBefore`: {"credential", "add", "fabrikam.com", "--certificate", certificate, "--start", "2001-01-01"},
		`--until "2h" is not after the time from which they ended`:   {"subscription", "restore", "--since", "1h", "--until", "2h"},
		`--app "` + strings.Repeat("a", 256) + `" is longer than`:    {"subscription", "restore", "--app", strings.Repeat("a", 256)},
	} {
		want(t, command.Misused, "badgerelay: "+says, at(args...)...)
	}
}
