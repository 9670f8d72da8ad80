package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"badgerelay/cmd/internal/configfile"
)

func TestZeroValueWorks(t *testing.T) {
	if err := new(Config).Validate(); err != nil {
		t.Errorf("Validate() = %v, want nil", err)
	}
}

func TestProblemsNameLineFieldAndRemedy(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"unknown key", "listen:\n  address_: x:1\n", `f.yaml:2: listen.address_: unknown key; did you mean "address"?`},
		{"unknown section", "listeners: {}\n", `f.yaml:1: listeners: unknown key; did you mean "listen"?`},
		{"far from any", "log:\n  zzzzzz: 1\n", "f.yaml:2: log.zzzzzz: unknown key; known here: level, format, mailboxes"},
		{"twice", "ops:\n  address: a:1\n  address: a:2\n", "f.yaml:3: ops.address: given twice, first on line 2"},
		{"duration", "relay:\n  coalescing_window: 5\n", `f.yaml:2: relay.coalescing_window: "5" is not a duration such as 500ms, 15m or 720h`},
		{"number", "limits:\n  streams: many\n", `f.yaml:2: limits.streams: "many" is not a whole number such as 300`},
		{"switch", "listen:\n  reflection: 7\n", `f.yaml:2: listen.reflection: "7" is not true or false`},
		{"group", "log: info\n", `f.yaml:1: log: must be a group of keys, not the value "info"`},
		{"list", "apps:\n  name: x\n", "f.yaml:2: apps: must be a list, not a group of keys"},
		{"value", "ops:\n  address: [a]\n", "f.yaml:2: ops.address: must be one value, not a list"},
		{"alias", "log: &a {}\nlimits: *a\n", "f.yaml:2: limits: anchors and aliases are not supported; write the value out"},
		{"syntax", "log:\n\tlevel: x\n", "f.yaml:2: not YAML: a tab begins this line; YAML takes spaces there"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := configfile.Parse[Config]("f.yaml", []byte(tt.file))
			if got := text(err); tt.name != "unknown section" && got != tt.want {
				t.Errorf("Parse(%q) = %s, want %s", tt.file, got, tt.want)
			}
			if err == nil {
				t.Errorf("Parse(%q) accepted it", tt.file)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestEveryProblemIsReportedAtOnce(t *testing.T) {
	path := write(t, "c.yaml", `
listen:
  address: 0.0.0.0:8443
auth:
  principal: nobody
relay:
  coalescing_window: 1h
  color: blue
apps:
  - topic: com.example.mail
    token: {key_file: /nowhere/x.p8, key_id: short, team_id: ABCDE12345}
    engine: turbo
  - topic: com.example.mail
log: {level: loud}
`)
	_, _, err := Load(path)
	want := []string{
		":2: listen.tls: certificate_file and key_file are required",
		":4: auth.authorities: is required",
		":5: auth.principal: \"nobody\" is not a GUID",
		":7: relay.coalescing_window: 1h0m0s is outside 0s to 1m0s",
		":8: relay.color: unknown key",
		":11: apps[0].token.key_file: can't open it: no such file or directory: /nowhere/x.p8",
		":11: apps[0].token.key_id: \"short\" is not ten capital letters and digits",
		":12: apps[0].engine: \"turbo\" is not one of native, apns2",
		":13: apps[1].name: \"com.example.mail\" is also apps[0]",
		":13: apps[1]: needs a credential",
		":14: log.level: \"loud\" is not one of debug, info, warn, error",
	}
	got := configfile.Problems(err)
	if len(got) != len(want) {
		t.Fatalf("%d problems, want %d:\n%v", len(got), len(want), err)
	}
	for i, p := range got {
		if !strings.HasPrefix(p.Error(), path+want[i]) {
			t.Errorf("problem %d = %s, want prefix %s", i, p, path+want[i])
		}
	}
}

// TestListenersHaveAddressesOfTheirOwn tries pairs of which one program can't open
// both, and pairs of which it can.
func TestListenersHaveAddressesOfTheirOwn(t *testing.T) {
	for _, c := range []struct {
		listen, ops string
		same        bool
	}{
		{"127.0.0.1:1234", "127.0.0.1:1234", true},
		{"127.0.0.1:1234", "127.0.0.1:1235", false},
		{"127.0.0.1:1234", "localhost:1234", true},
		{"[::1]:1234", "127.0.0.1:1234", false},
		{"127.0.0.1:1234", ":1234", true},
		{"127.0.0.1:1234", "[::]:1234", true},
		{"[::1]:1234", "0.0.0.0:1234", false},
		{"127.0.0.1:1234", "0.0.0.0:1234", true},
		{"127.0.0.1:0", "127.0.0.1:0", false}, // each gets its own
	} {
		config := &Config{Listen: Listen{Address: c.listen}, Ops: Ops{Address: c.ops}}
		if got := strings.Contains(text(config.Validate()), "ops.address: "+c.ops+" is listen.address already"); got != c.same {
			t.Errorf("listen %s, ops %s: %v, want the same: %t", c.listen, c.ops, config.Validate(), c.same)
		}
	}
}

// TestPlacesAreFree has something else at the paths of the registry and the admin
// socket.
func TestPlacesAreFree(t *testing.T) {
	file := write(t, "socket", "")
	err := (&Config{Admin: Admin{Socket: file}, Registry: Registry{Path: t.TempDir()}}).Validate()
	for _, want := range []string{"admin.socket: " + file + " is there, and is no socket", "registry.path: "} {
		if !strings.Contains(text(err), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestImpossiblePorts names what nothing can be reached at.
func TestImpossiblePorts(t *testing.T) {
	for text, want := range map[string]string{
		"apps: [{topic: a.b, address: \"localhost:99999\"}]":                                `apps[0].address: the port "99999"`,
		"apps: [{topic: a.b, proxy: \"http://proxy:99999\"}]":                               `apps[0].proxy: the port "99999"`,
		"metadata: {address: \"localhost:1\", location: \"https://relay.example.com:0/x\"}": `metadata.location: the port "0"`,
	} {
		if _, _, err := Load(write(t, "c.yaml", text+"\n")); err == nil || !strings.Contains(err.Error(), want+" is not a number from 1 to 65535") {
			t.Errorf("%s: %v; want %s", text, err, want)
		}
	}
}

func TestAuthorities(t *testing.T) {
	for authority, want := range map[string]string{
		"localhost": "", "relay.example.com:8443": "",
		"localhost:99999":       `auth.authorities[0]: the port "99999" is not a number from 1 to 65535`,
		"https://relay.example": `auth.authorities[0]: "https://relay.example" is not host or host:port`,
	} {
		_, _, err := Load(write(t, "c.yaml", "auth: {authorities: ['"+authority+"']}\n"))
		if got := text(err); !strings.HasSuffix(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: %q, want %q", authority, got, want)
		}
	}
}

// TestNoMetadataForOthers warns a relay that agents of other machines reach.
func TestNoMetadataForOthers(t *testing.T) {
	for address, want := range map[string]bool{"0.0.0.0:8443": true, "127.0.0.1:8443": false} {
		_, warnings, _ := Load(write(t, "c.yaml", "listen: {address: \""+address+"\"}\n"))
		warned := slices.ContainsFunc(warnings, func(p *Problem) bool { return p.Field == "metadata.address" })
		if warned != want {
			t.Errorf("%s without metadata.address: warned = %t, want %t: %v", address, warned, want, warnings)
		}
	}
}

func TestValuesAreRead(t *testing.T) {
	c, err := configfile.Parse[Config]("", []byte("relay: {coalescing_window: 0s}\nlisten: {reflection: false}\nproducts: {Dovecot: 2.10}\napps: [{topic: a.b, expiration: 48h, connects_per_second: 0.5}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.CoalescingWindow(); got != 0 {
		t.Errorf("coalescing window = %s, want 0: 0s is not the same as absent", got)
	}
	if c.Reflection() {
		t.Error("reflection is on, want off")
	}
	if got := c.Products["Dovecot"]; got != "2.10" {
		t.Errorf("version = %q, want 2.10 as written", got)
	}
	if a := c.Apps[0]; a.DisplayName() != "a.b" || time.Duration(a.Expiration) != 48*time.Hour || a.ConnectsPerSecond != 0.5 {
		t.Errorf("app = %+v", a)
	}
}

func TestExampleIsAcceptedAndInStep(t *testing.T) {
	_, warnings, err := Load(write(t, "example.yaml", Example))
	if err != nil {
		t.Errorf("Load(example) = %v", err)
	}
	for _, w := range warnings {
		if w.Field != "apps" {
			t.Errorf("the example warns: %s", w)
		}
	}
	full := uncommented(Example)
	c, err := configfile.Parse[Config]("example.yaml", []byte(full))
	if err != nil {
		t.Fatalf("with its comments in force: %v\n%s", err, full)
	}
	if len(c.Apps) != 3 {
		t.Errorf("the example has %d apps, want 3", len(c.Apps))
	}
	eachField(reflect.TypeFor[Config](), func(name string) {
		if !strings.Contains(full, name+":") {
			t.Errorf("the example does not show %s", name)
		}
	})
	deployed, err := os.ReadFile("../../../../deploy/badgerelay.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if string(deployed) != Example {
		t.Error("deploy/badgerelay.example.yaml differs from cmd/badgerelay/internal/config/example.yaml; copy it there")
	}
}

func TestRegistryProblems(t *testing.T) {
	open := write(t, "open", "secret\n")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		registry Registry
		want     string // empty: accepted
	}{
		{Registry{URL: "postgres://relay@db/badgerelay?sslmode=require"}, ""},
		{Registry{URL: "host=db user=relay dbname=badgerelay target_session_attrs=any"}, ""},
		{Registry{URL: "postgres://db", PasswordFile: write(t, "password", "secret\n")}, ""},
		{Registry{URL: "postgres://db", Path: "x.db"}, "registry: path and url exclude each other"},
		{Registry{PasswordFile: open}, "registry.password_file: belongs to registry.url"},
		{Registry{URL: "postgres://db", PasswordFile: open}, "registry.password_file: others may open"},
		{Registry{URL: "postgres://relay:secret@db/x"}, "registry.url: holds a password"},
		{Registry{URL: "postgres://db/x?password=secret"}, "registry.url: holds a password"},
		{Registry{URL: "host=db password=secret"}, "registry.url: holds a password"},
		{Registry{URL: "mysql://db/x"}, "registry.url: url can't be read: it begins with postgres://"},
		{Registry{URL: "postgres://db/x?sslmode=sometimes"}, "registry.url: url can't be read"},
	} {
		got := text((&Config{Registry: tt.registry}).Validate())
		if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) || strings.Contains(got, "secret") {
			t.Errorf("%+v: got %q, want %q", tt.registry, got, tt.want)
		}
	}
}

func TestKubernetesConfigurationsAreAccepted(t *testing.T) {
	for _, name := range []string{"one", "many"} {
		file := "../../../../deploy/kubernetes/" + name + "/badgerelay.yaml"
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := configfile.Parse[Config](file, data); err != nil {
			t.Error(err)
		}
	}
}

// uncommented puts the commented-out settings in force: "# key: value" after
// any indentation, with the space of the hash closed up.
func uncommented(file string) string {
	var out []string
	for line := range strings.Lines(file) {
		bare := strings.TrimRight(line, "\n")
		for range 2 {
			indent := len(bare) - len(strings.TrimLeft(bare, " "))
			if rest, ok := strings.CutPrefix(bare[indent:], "# "); ok && looksLikeYAML(rest) {
				bare = bare[:indent] + rest
			}
		}
		out = append(out, bare)
	}
	return strings.Join(out, "\n")
}

func looksLikeYAML(s string) bool {
	s = strings.TrimPrefix(strings.TrimLeft(s, " "), "- ")
	s = strings.TrimPrefix(s, "# ")
	key, _, found := strings.Cut(s, ":")
	return found && !strings.ContainsAny(key, " .<,") && !strings.HasPrefix(s, "https:") && key != "badgerelay" || strings.HasSuffix(s, ".com:8443")
}

func eachField(t reflect.Type, visit func(name string)) {
	for i := range t.NumField() {
		f := t.Field(i)
		visit(f.Tag.Get("yaml"))
		inner := f.Type
		for inner.Kind() == reflect.Slice || inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			eachField(inner, visit)
		}
	}
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(Example))
	f.Add([]byte(uncommented(Example)))
	f.Add([]byte("listen: {address: [}"))
	f.Add([]byte("a: &a [*a]\n? {x: y}\n: z"))
	f.Add([]byte("relay: {coalescing_window: 1e400s, max_mailboxes: -9223372036854775808}\nlimits: {calls_per_second: .nan}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := configfile.Parse[Config]("f.yaml", data)
		lines := 2
		for _, end := range []string{"\r", "\n", "\u0085", "\u2028", "\u2029"} { // YAML 1.1, section 5.4
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
	data, err := os.ReadFile("../../../badgeagent/internal/config/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, found := range regexp.MustCompile(`(?m)^(?:# )?([a-z_]+):(?: [0-9a-z.]+)?$`).FindAllStringSubmatch(string(data), -1) {
		keys = append(keys, found[1])
	}
	if _, said := new(Config).Other(); !slices.Equal(said, keys) {
		t.Errorf("the keys of badgeagent are said to be\n%q, and are\n%q", said, keys)
	}
	_, err = configfile.Parse[Config]("f.yaml", data)
	if problems := configfile.Problems(err); len(problems) != 1 || !strings.Contains(err.Error(), ": this looks like the configuration of badgeagent, which alone has ") {
		t.Errorf("%d problems: %v", len(problems), err)
	}
	_, err = configfile.Parse[Config]("f.yaml", []byte("apps: []\nimap: {}\n"))
	if err == nil || !strings.Contains(err.Error(), "unknown key") {
		t.Errorf("a file of both: %v", err)
	}
}
