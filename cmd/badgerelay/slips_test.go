package main

import (
	"crypto/sha1"
	"fmt"
	"os"
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"
)

// TestSlips has operators name what is something else than they think.
func TestSlips(t *testing.T) {
	f := newFiles(t)
	_, app := apple(t, f)
	file := f.base(t, app)
	s := serve(t, file)
	at := func(args ...string) []string { return append(args, "--admin", s.Admin) }
	want(t, command.Done, "", at("organization", "add", "fabrikam.com")...)
	_, certificate := newIssuerOf(t, f, "fabrikam.com", "a.cer")
	want(t, command.Done, "", at("credential", "add", "fabrikam.com", "--certificate", certificate)...)
	add := func(file string) []string { return at("credential", "add", "fabrikam.com", "--certificate", file) }
	empty, text := f.write(t, "empty.cer", ""), f.write(t, "text.cer", "no certificate")
	want(t, command.Misused, empty+" is empty", add(empty)...)
	want(t, command.Misused, f.dir+" is a directory", add(f.dir)...)
	imported := func(file string) []string {
		return at("subscription", "import", "--organization", "fabrikam.com", file)
	}
	want(t, command.Misused, empty+" is empty", imported(empty)...)
	want(t, command.Misused, f.dir+" is a directory", imported(f.dir)...)
	want(t, command.Misused, `--since "2099-01-01" is in the future`, at("subscription", "restore", "--since", "2099-01-01")...)
	want(t, command.Misused, "organization show: [organization] is empty", at("organization", "show", "")...)
	want(t, command.Misused, text+" holds no certificate: ", add(text)...)
	ecdsa, _ := f.pair(t, "relay")
	want(t, command.Misused, ecdsa+" is not a certificate that signs tokens: its key is ECDSA, not RSA; it is the file that 'badgeagent cert ensure' exports", add(ecdsa)...)
	out := want(t, command.Failed, "make backup in directory "+f.path("nodir")+": ", "registry", "backup", f.path("nodir/x.db"), "--config", file)
	if strings.Contains(out, ".part") {
		t.Errorf("a backup into no directory says %s", out)
	}
	want(t, command.Failed, `no subscription of app "mial" has ended, and the relay has no such app; its apps are mail`, at("subscription", "restore", "--app", "mial")...)
	want(t, command.Misused, `no subscription has ended for reason "Foo"; reasons are Unregistered, `, at("subscription", "restore", "--reason", "Foo")...)
	want(t, command.Done, "0 subscriptions restored", at("subscription", "restore", "--app", "mail", "--reason", "Expired")...)
	code, out := executeWith(t, `{"mailbox": 1}`, at("subscription", "import", "--organization", "fabrikam.com")...)
	if code != command.Misused || !strings.Contains(out, "entry 1: mailbox can't be a JSON number") {
		t.Errorf("an import of a number = %d, %s", code, out)
	}
	for input, says := range map[string]string{
		"":                                  "warning: standard input is empty: there is nothing to import",
		strings.Repeat("\x00", 1<<20+1<<16): "standard input: a line has more than 1048576 bytes; nothing was imported",
		"[{}]":                              "entry 1: it can't be a JSON array",
		"{x":                                "entry 1 is not JSON: ",
		"\xff\xfea\x00":                     "standard input is text in UTF-16: save it as UTF-8",
		"\xef\xbb\xbf{\"mailbox\": 1}":      "entry 1: mailbox can't be a JSON number",
	} {
		if code, out := executeWith(t, input, at("subscription", "import", "--organization", "fabrikam.com")...); !strings.Contains(out, says) || (code == command.Done) != (input == "") {
			t.Errorf("an import of %q = %d, %s; want %q", input, code, out, says)
		}
	}
	der, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	var colons []string
	for _, b := range sha1.Sum(der) {
		colons = append(colons, fmt.Sprintf("%02X", b))
	}
	want(t, command.Done, "is removed", at("credential", "remove", "--organization", "fabrikam.com", strings.Join(colons, ":"))...)
}
