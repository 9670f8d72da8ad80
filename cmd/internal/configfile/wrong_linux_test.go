package configfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

type settings struct {
	Name   string   `yaml:"name"`
	Count  int      `yaml:"count"`
	Share  float64  `yaml:"share"`
	On     bool     `yaml:"on"`
	Wait   Duration `yaml:"wait"`
	Folded struct {
		List []string `yaml:"list"`
	} `yaml:"folded"`
}

const secret = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"

// TestWrongContent says of each file what is wrong, and nothing of what may be a secret.
func TestWrongContent(t *testing.T) {
	pem := "-----BEGIN PRIVATE KEY-----\n" + secret + "\n-----END PRIVATE KEY-----\n"
	for content, want := range map[string]string{
		"":                                  "is empty",
		" \n\t\n":                           "is empty",
		"name: a\n---\n":                    "",
		"# nothing yet\n":                   "",
		"name: a\ncount: 3\n":               "",
		"share: 1":                          "",
		pem:                                 "holds a key or a certificate, and no configuration",
		secret:                              ":1: must be a group of keys, not one value",
		"hunter2 " + secret + "\n" + secret: ":1: must be a group of keys, not one value",
		"- " + secret:                       ":1: must be a group of keys, not a list",
		"folded: " + secret:                 ":1: folded: must be a group of keys, not one value",
		"folded: {list: " + secret + "}":    ":1: folded.list: must be a list, not one value",
		"count: " + secret:                  ":1: count: this value is not a whole number",
		"on: " + secret:                     ":1: on: this value is not true or false",
		"wait: " + secret:                   ":1: wait: this value is not a duration such as 500ms, 15m or 720h",
		"name: |\n  " + strings.ReplaceAll(pem, "\n", "\n  "): ":1: name: must be one line; keys and certificates are in files of their own, whose names are given",
		"name: " + strings.ReplaceAll(pem, "\n", " "):         ":1: name: must be one line; keys and certificates are in files of their own, whose names are given",
		"count: 1.5":                  `:1: count: "1.5" is not a whole number`,
		"count: 1e3":                  `:1: count: "1e3" is not a whole number`,
		"count: '3'":                  `:1: count: "3" is text, in quotes, and not a whole number such as 300`,
		"count: 0x10":                 `:1: count: "0x10" is not a whole number such as 300`,
		"count: 010":                  `:1: count: "010" is not a whole number such as 300`,
		"count: 1_000":                `:1: count: "1_000" is not a whole number such as 300`,
		"count: ١":                    `:1: count: "١" is not a whole number such as 300`,
		"count: 99999999999999999999": `:1: count: "99999999999999999999" is too large`,
		"share: many":                 `:1: share: "many" is not a number such as 300 or 0.5`,
		"share: 1e3":                  `:1: share: "1e3" is not a number such as 300 or 0.5`,
		"share: .nan":                 `:1: share: ".nan" is not a number such as 300 or 0.5`,
		"share: 0.25":                 "",
		"on: maybe":                   `:1: on: "maybe" is not true or false`,
		"on: 'true'":                  `:1: on: "true" is text, in quotes, and not true or false`,
		"folded:\n\tlist: []":         ":2: not YAML: a tab begins this line; YAML takes spaces there",
		"name: a\nfolded: @b":         ":2: not YAML: a value that begins with %, @ or ` needs quotes",
		"share: 1\nname: \xff":        ":2: not YAML: this line is not text in UTF-8",
		"\xef\xbb\xbfname: a\r\n":     "",
		"name: a\n---\nname: b\n":     ":2: a second document begins here; a configuration is one",
		"name: a\n...\nname: [\n":     "not YAML",
	} {
		file := filepath.Join(t.TempDir(), "a.yaml")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := Load(file, "", func(*settings, *Checker) {})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if want == "" && got != "" || !strings.Contains(got, want) || strings.Contains(got, secret) || strings.Contains(got, "hunter") {
			t.Errorf("%q is %q, want %q", content, got, want)
		}
	}
}

// TestAddresses that nothing could listen at, or be reached at, are told apart.
func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"localhost:1": "", ":443": "", "[::1]:0": "", "xn--mller-kva.de:993": "",
		"localhost": "is not host:port", "imap://x:1": "is not host:port", "::1:143": "is not host:port",
		"x:0x50": "is not a number", "x:1e3": "is not a number", "x: 5": "is not a number", "x:\u0661": "is not a number", "x:65536": "is not a number",
		"local host:1": "DNS writes other letters with xn--", "m\u00fcller.de:993": "DNS writes other letters with xn--",
	} {
		if got := BadAddress(address); !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%q: %q, want %q", address, got, want)
		}
	}
}

// TestWhatIsNoFile is refused at once, whatever it is.
func TestWhatIsNoFile(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(large, []byte("name: "+strings.Repeat("a", maxFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		t.TempDir():   "is no file",
		os.DevNull:    "is no file",
		"/nowhere/at": "there is no file /nowhere/at",
		large:         fmt.Sprint("is larger than ", maxFile, " bytes"),
	} {
		if _, _, err := Read(path, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is %v, want %q", path, err, want)
		}
	}
}

// TestAuthoritiesWithoutEnd are not read to it.
func TestAuthoritiesWithoutEnd(t *testing.T) {
	if _, err := Pool("/dev/zero"); err == nil || err.Error() != "/dev/zero is not a file of at most 1 MiB" {
		t.Errorf("authorities in /dev/zero: %v", err)
	}
}

// TestPipes are read whole, and not waited for where nobody writes.
func TestPipes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(path, ""); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("nobody writes: %v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() // nothing is read from it
	read := make(chan string)
	go func() { // ends with the writer
		data, _, err := Read(fmt.Sprint("/dev/fd/", r.Fd()), "")
		read <- fmt.Sprint(string(data), err)
	}()
	for _, part := range []string{"name: ", "a\n"} {
		if _, err := w.WriteString(part); err != nil {
			t.Error(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if got := <-read; got != "name: a\n<nil>" {
		t.Errorf("somebody writes: got %q", got)
	}
}
