package audience

import (
	"strings"
	"testing"
)

func TestAuthority(t *testing.T) {
	for s, want := range map[string]bool{
		"relay.example.com":                  true,
		"relay.example.com:443":              true,
		"relay.example.com:65535":            true,
		"192.0.2.1:8443":                     true,
		"[2001:db8::1]":                      true,
		"[2001:db8::1]:8443":                 true,
		"":                                   false,
		"relay.example.com:443:443":          false,
		"relay.example.com::443":             false,
		"relay.example.com:":                 false,
		"relay.example.com:0":                false,
		"relay.example.com:65536":            false,
		"relay.example.com:https":            false,
		"relay.example.com:+443":             false,
		":443":                               false,
		"2001:db8::1":                        false,
		"[2001:db8::1":                       false,
		"[2001:db8::1]443":                   false,
		"[2001:db8::1]:":                     false,
		"[2001:db8::1]:443:443":              false,
		"[fe80::1%eth0]":                     false,
		"[192.0.2.1]":                        false,
		"[relay.example.com]":                false,
		"[[2001:db8::1]]":                    false,
		"relay.example.com]":                 false,
		strings.Repeat("a", 255) + ":443":    true,
		strings.Repeat("a", 256) + ":443":    false,
		"relay.example.com:443@fabrikam.com": false,
	} {
		if got := IsAuthority(s); got != want {
			t.Errorf("%q: got %v, want %v", s, got, want)
		}
		const principal = "00000003-0000-0ff1-ce00-000000000000"
		if _, got := Parse(principal + "/" + s + "@fabrikam.com"); got != want {
			t.Errorf("audience with %q: got %v, want %v", s, got, want)
		}
	}
}
