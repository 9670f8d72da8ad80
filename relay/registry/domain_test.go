package registry_test

import (
	"strings"
	"testing"

	"badgerelay/relay/registry"
)

func TestOrganizationIsADomain(t *testing.T) {
	label := strings.Repeat("a", 63)
	for name, broken := range map[string]string{
		"Fabrikam.COM": "", "localhost": "", "a-b.c": "", "1.2": "", label + ".de": "",
		strings.Join([]string{label, label, label, label[:61]}, "."): "",
		strings.Join([]string{label, label, label, label[:62]}, "."): "it has 254 bytes, and 253 are allowed",
		label + "a.de":         "a part between dots has 64 bytes, and 63 are allowed",
		"":                     "it is empty",
		"fabrikam.com ":        "it begins or ends with a space",
		"https://fabrikam.com": "it is an address; the domain alone is needed",
		"ann@fabrikam.com":     "it is a mailbox; what stands after the @ is needed",
		"b\u00fccher.de":       "it has a '\u00fc', and only letters from a to z, digits, hyphens and dots are allowed; DNS writes other letters with xn--",
		"a_b.de":               "it has a '_', and only letters from a to z, ",
		"fabrikam.com.":        "a dot begins or ends it, or follows another",
		".de":                  "a dot begins or ends it, or follows another",
		"a..de":                "a dot begins or ends it, or follows another",
		"a-.de":                "a hyphen begins or ends a part between dots",
		"a.-de":                "a hyphen begins or ends a part between dots",
		"-":                    "a hyphen begins or ends a part between dots",
	} {
		normal, err := registry.NormalizeOrganization(name)
		if broken == "" && (err != nil || normal != strings.ToLower(name)) {
			t.Errorf("%q: %q, %v", name, normal, err)
		}
		if broken != "" && (err == nil || !strings.Contains(err.Error(), "is not a domain name: "+broken)) {
			t.Errorf("%q: %v, want %q", name, err, broken)
		}
	}
}
