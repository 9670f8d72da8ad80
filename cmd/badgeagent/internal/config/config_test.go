package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"badgerelay/cmd/internal/configfile"
)

// TestImpossiblePorts names what nothing can be reached at.
func TestImpossiblePorts(t *testing.T) {
	for text, want := range map[string]string{
		"relay: {addresses: [\"relay.example.com:0\"]}":      `relay.addresses[0]: the port "0"`,
		"imap: {address: \"mail.example.com:99999\"}":        `imap.address: the port "99999"`,
		"ews: {url: \"https://mail.example.com:99999/x\"}":   `ews.url: the port "99999"`,
		"ews: {autodiscover: \"https://a.example.com:0/x\"}": `ews.autodiscover: the port "0"`,
	} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Load(path); err == nil || !strings.Contains(err.Error(), want+" is not a number from 1 to 65535") {
			t.Errorf("%s: %v; want %s", text, err, want)
		}
	}
}

func TestEveryProblemIsReportedAtOnce(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o644); err != nil { // the umask may have taken some of it
		t.Fatal(err)
	}
	path := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(path, []byte(`
relay:
  adresses: [a:1]
imap:
  address: mail.example.com:143
  security: none
  master_user: agent
  master_password_file: `+open+`
  credentials_file: x
  folders: ["", Inbox, Work, INBOX]
  watch: sometimes
  max_connections: 1
dovecot: {enabled: true}
local: {address: "0.0.0.0:80", socket_mode: "0999"}
resync: {counts_per_second: -1}
log: {level: loud}
agent_id: "mail 1"
`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := Load(path)
	want := []string{
		`:3: relay.adresses: unknown key; did you mean "addresses"?`,
		`:4: imap: master_user and credentials_file exclude each other`,
		`:6: imap.security: none is for loopback only`,
		`:10: imap.folders[0]: "" is not a folder's name`,
		`:10: imap.folders[3]: "INBOX" is there twice`,
		`:11: imap.watch: "sometimes" is not one of auto, notify, idle, poll, off`,
		`:12: imap.max_connections: 1 is outside 2 to 100000`,
		`:13: dovecot.token_file: is required`,
		`:14: local.socket_mode: "0999" is not an octal mode`,
		`:14: local.address: 0.0.0.0:80 is not a loopback address`,
		`:15: resync.counts_per_second: -1 is outside`,
		`:16: log.level: "loud" is not one of debug, info, warn, error`,
		`:17: agent_id: "mail 1" has a character that is not visible ASCII`,
	}
	got := configfile.Problems(err)
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("missing: %s", want[i])
		case i >= len(want):
			t.Errorf("surplus: %s", got[i])
		case !strings.HasPrefix(got[i].Error(), path+want[i]):
			t.Errorf("problem %d = %s, want prefix %s", i, got[i], path+want[i])
		}
	}
}

// validate returns every problem of a configuration that was read from no file.
func validate(c *Config) error {
	k := new(configfile.Checker)
	c.check(k)
	_, err := configfile.Sort(k.Found)
	return err
}

func TestAPasswordMustBePrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	for mode, want := range map[os.FileMode]bool{0o600: true, 0o640: true, 0o644: false} {
		if err := os.WriteFile(path, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // the umask may have taken some of it
			t.Fatal(err)
		}
		c := &Config{IMAP: IMAP{Address: "localhost:993", MasterUser: "a", MasterPasswordFile: path}}
		if err := validate(c); (err == nil) != want {
			t.Errorf("mode %o: %v, want it accepted: %v", mode, err, want)
		}
	}
}

func TestASuffixMakesAddresses(t *testing.T) {
	for suffix, want := range map[string]bool{
		"": true, "@fabrikam.com": true, "-mail@fabrikam.com": true, "fabrikam.com": false, "@": false, "@fabrikam.com ": false,
	} {
		c := &Config{Mailboxes: Mailboxes{Suffix: suffix}, Dovecot: Dovecot{Enabled: true}}
		if err := validate(c); strings.Contains(fmt.Sprint(err), "mailboxes.suffix") == want {
			t.Errorf("%q: %v, want it accepted: %v", suffix, err, want)
		}
	}
}

// TestTheSocketsDirectoryIsLookedFor has it missing, which systemd may mend, and be none.
func TestTheSocketsDirectoryIsLookedFor(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for socket, want := range map[string]string{
		filepath.Join(dir, "agent.sock"):            "",
		filepath.Join(dir, "missing", "agent.sock"): "warning: the directory " + filepath.Join(dir, "missing") + " is not there",
		filepath.Join(file, "agent.sock"):           file + " is no directory",
		filepath.Join(file, "below", "agent.sock"):  filepath.Join(file, "below") + " is no directory",
	} {
		k := new(configfile.Checker)
		(&Config{Local: Local{Socket: socket}, Dovecot: Dovecot{Enabled: true}, AgentID: "mx1"}).checkLocal(k)
		got := ""
		for _, p := range k.Found {
			got += p.Text
			if p.Warning {
				got = "warning: " + got
			}
		}
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", socket, got, want)
		}
	}
}

func TestWithoutASourceThereIsNothingToDo(t *testing.T) {
	if err := validate(new(Config)); err == nil || !strings.Contains(err.Error(), "nothing to watch") {
		t.Errorf("got %v, want that a source is missing", err)
	}
}

func TestWhatKeepsNoBadgeRightIsRefused(t *testing.T) {
	dir := t.TempDir()
	token, credentials := filepath.Join(dir, "token"), filepath.Join(dir, "credentials")
	var logins strings.Builder
	for n := range 30_000 {
		fmt.Fprintf(&logins, "user%d@fabrikam.com\tuser%[1]d@fabrikam.com\t%s\n", n, strings.Repeat("x", 30))
	}
	for path, content := range map[string]string{token: "xxxxxxxxxx", credentials: logins.String()} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dovecot, local := Dovecot{Enabled: true, TokenFile: token}, Local{Address: "127.0.0.1:9466"}
	off := IMAP{Address: "localhost:993", CredentialsFile: credentials, Watch: "off"}
	for name, tt := range map[string]struct {
		c    Config
		want string // empty: accepted
	}{
		"only counts, and Dovecot tells":    {Config{IMAP: off, Dovecot: dovecot, Local: local}, ""},
		"only counts, and nobody tells":     {Config{IMAP: off}, "imap.watch: off needs dovecot.enabled"},
		"Dovecot tells one folder's count":  {Config{IMAP: IMAP{Folders: []string{"Work"}}, Dovecot: dovecot, Local: local}, ""},
		"a port that asks for no token":     {Config{IMAP: IMAP{}, Local: local}, "local.token_file: is required with local.address"},
		"Dovecot can't tell the sum of two": {Config{IMAP: IMAP{Folders: []string{"INBOX", "Work"}}, Dovecot: dovecot, Local: local}, "imap.folders: more than one folder needs imap.address"},
	} {
		err := validate(&tt.c)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// TestLoginsAreReadAsTheDaemonReadsThem: what it could not start with is no valid
// configuration.
func TestLoginsAreReadAsTheDaemonReadsThem(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	credentials := IMAP{Address: "localhost:993", CredentialsFile: file}
	password := IMAP{Address: "localhost:993", MasterUser: "agent", MasterPasswordFile: file}
	for _, tt := range []struct {
		content string
		imap    IMAP
		want    []string // none: accepted
	}{
		{"# logins\nann\tann@x\tsecret\n\nbob\tbob\tsecret", credentials, nil},
		{"ann ann secret\nbob\tbob\tsecret\nbob\tbob\tsecret\n", credentials, []string{
			"imap.credentials_file: " + file + ": line 1: want user, login name and password, with tabs between them",
			"imap.credentials_file: " + file + ": line 3: user given twice"}},
		{"secret", password, nil},
		{"", password, []string{"imap.master_password_file: the first line of " + file + " is empty"}},
		{"\r\nsecret", password, []string{"imap.master_password_file: the first line of " + file + " is empty"}},
	} {
		if err := os.WriteFile(file, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		err := validate(&Config{IMAP: tt.imap})
		if (err == nil) != (tt.want == nil) {
			t.Errorf("%q: %v, want %q", tt.content, err, tt.want)
		}
		for _, want := range tt.want {
			if err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(strings.ReplaceAll(err.Error(), file, ""), "bob")) {
				t.Errorf("%q: %v, want %q, and no login", tt.content, err, want)
			}
		}
	}
}

func TestExampleIsAcceptedAndInStep(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{"imap-password", "imap-credentials", "dovecot-token", "backend-token"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(map[bool]string{true: "ann\tann\tsecret\n", false: "secret\n"}[file == "imap-credentials"]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(Example, "/etc/badgeagent", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, warnings, err := Load(path); err != nil || len(warnings) > 0 {
		t.Errorf("Load(example) = %v, %v", warnings, err)
	}
	full := uncommented(Example)
	if _, err := configfile.Parse[Config]("example.yaml", []byte(full)); err != nil {
		t.Fatalf("with its comments in force: %v\n%s", err, full)
	}
	eachField(reflect.TypeFor[Config](), func(name string) {
		if !strings.Contains(full, name+":") {
			t.Errorf("the example does not show %s", name)
		}
	})
	deployed, err := os.ReadFile("../../../../deploy/badgeagent.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if string(deployed) != Example {
		t.Error("deploy/badgeagent.example.yaml differs from cmd/badgeagent/internal/config/example.yaml; copy it there")
	}
}

// uncommented puts the commented-out settings in force: "# key: value" and
// "# - value" after any indentation.
func uncommented(file string) string {
	var out strings.Builder
	for line := range strings.Lines(file) {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		rest, commented := strings.CutPrefix(line[indent:], "# ")
		key, value, found := strings.Cut(strings.TrimLeft(rest, " "), ":")
		setting := found && !strings.ContainsAny(key, " .") && (value == "\n" || strings.HasPrefix(value, " ")) && !strings.HasPrefix(rest, "badge")
		if commented && indent > 0 && (setting || strings.HasPrefix(strings.TrimLeft(rest, " "), "- ")) {
			line = line[:indent] + rest
		}
		out.WriteString(line)
	}
	return out.String()
}

func eachField(t reflect.Type, visit func(name string)) {
	for i := range t.NumField() {
		f := t.Field(i)
		visit(f.Tag.Get("yaml"))
		if f.Type.Kind() == reflect.Struct {
			eachField(f.Type, visit)
		}
	}
}

// FuzzConfig reads a file that is anything at all: every problem has a text and
// a line of the file, as YAML's decoder counts lines: it also ends them where
// Unicode does (YAML 1.1, section 5.4).
func FuzzConfig(f *testing.F) {
	f.Add([]byte(Example))
	f.Add([]byte(uncommented(Example)))
	f.Add([]byte("imap: {folders: [INBOX, [}"))
	f.Add([]byte("resync: {counts_per_second: .inf, concurrency: -1}\nimap: {timeout: 1e400s}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := configfile.Parse[Config]("f.yaml", data)
		lines := 2
		for _, end := range []string{"\r", "\n", "\u0085", "\u2028", "\u2029"} {
			lines += strings.Count(string(data), end)
		}
		if start := string(data[:min(2, len(data))]); start == "\xfe\xff" || start == "\xff\xfe" {
			lines += len(data) / 2 // UTF-16, which has other bytes for them
		}
		for _, p := range configfile.Problems(err) {
			if p.Text == "" || p.Line < 0 || p.Line > lines {
				t.Errorf("problem %q on line %d of a file with %d bytes", p.Error(), p.Line, len(data))
			}
		}
	})
}

// TestConfigurationOfTheOtherProgram reads its example, from which the keys are, and a file
// of both.
func TestConfigurationOfTheOtherProgram(t *testing.T) {
	data, err := os.ReadFile("../../../badgerelay/internal/config/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, found := range regexp.MustCompile(`(?m)^(?:# )?([a-z_]+):(?: [0-9a-z.]+)?$`).FindAllStringSubmatch(string(data), -1) {
		keys = append(keys, found[1])
	}
	if _, said := new(Config).Other(); !slices.Equal(said, keys) {
		t.Errorf("the keys of badgerelay are said to be\n%q, and are\n%q", said, keys)
	}
	_, err = configfile.Parse[Config]("f.yaml", data)
	if problems := configfile.Problems(err); len(problems) != 1 || !strings.Contains(err.Error(), ": this looks like the configuration of badgerelay, which alone has ") {
		t.Errorf("%d problems: %v", len(problems), err)
	}
	_, err = configfile.Parse[Config]("f.yaml", []byte("apps: []\nimap: {}\n"))
	if err == nil || !strings.Contains(err.Error(), "unknown key") {
		t.Errorf("a file of both: %v", err)
	}
}
