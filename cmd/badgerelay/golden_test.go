package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/command/commandtest"
)

func TestCommandLine(t *testing.T) {
	root := process{Terminal: &command.Terminal{}}.command()
	run := func(args ...string) (int, string) { return execute(t, args...) }
	t.Run("help", func(t *testing.T) { commandtest.Help(t, root, run) })
	t.Run("mistakes", func(t *testing.T) {
		commandtest.Mistakes(t, root, run,
			"config chekc", "registry backp x", "organization create fabrikam.com", "organization add", "organization show",
			"credential contoso.com", "credential list", "credential add fabrikam.com", "credential list a.com --organization b.com", "credential list --organization a.com --organization b.com",
			"subscription list --limit -3", "subscription list --limit many", "organization add a.com --max-streams -1",
			"organization add a.com --max-stream 1", "subscription list --organization a.com --timeout -5s", "subscription restore", "mailbox show ann@a.com", "mailbox show a.com ann@a.com c", "mailbox show a.com ann@a.com --organization b.com",
			"subscription import --organization a.com --format xml", "status --output xml", "demo --check -1s", "demo --check 1ms", "demo --log-level loud",
			"status --page --all --admin /nowhere/admin.sock", "status --admin 127.0.0.1:99999 --tls-cert c --tls-key k", "status --admin https://127.0.0.1:1", "man", "man d --date tomorrow", "-- status", "config check a.yaml --config b.yaml")
	})
	t.Run("output", func(t *testing.T) {
		f := newFiles(t)
		_, app := apple(t, f)
		file := f.base(t, app)
		s := serve(t, file)
		certificate := f.rsaCertificate(t, "OAuthCert.cer")
		token := strings.Repeat("ab", 32)
		o, device := " --organization fabrikam.com", " --mailbox ann@fabrikam.com --app mail --device-token "+token
		admin := func(args ...string) (int, string) {
			if !slices.Contains([]string{"config", "version", "registry"}, args[0]) && !slices.Contains(args, "--admin") {
				args = append(args, "--admin", s.Admin)
			}
			return execute(t, args...)
		}
		commandtest.Output(t, "badgerelay", admin, blurred(f),
			"version", "version --output json", "config check "+file, "config check --output json "+file, "config check /nowhere --output json",
			"organization add fabrikam.com --dry-run", "organization add fabrikam.com", "organization add fabrikam.com", "organization list",
			"organization list --output json", "organization show fabrikam.com", "organization show contoso.com", "organization add not_a_domain!",
			"credential add"+o+" --dry-run --certificate "+certificate, "credential add"+o+" --certificate "+certificate,
			"credential add"+o+" --certificate "+certificate, "credential list fabrikam.com", "credential list fabrikam.com --output json",
			"subscription add"+o+device+" --dry-run", "subscription add"+o+device, "subscription add"+o+device, "subscription add"+o+device+"0",
			"subscription list fabrikam.com", "subscription list fabrikam.com --output json",
			"mailbox show fabrikam.com ann@fabrikam.com", "mailbox show fabrikam.com anna@fabrikam.com", "mailbox show contoso.com ann@contoso.com",
			"subscription remove"+o+device, "subscription remove"+o+device, "credential remove"+o+" 00", "organization remove fabrikam.com",
			"organization disable fabrikam.com", "organization remove fabrikam.com", "organization remove fabrikam.com --dry-run",
			"organization remove fabrikam.com --yes", "organization restore fabrikam.com", "organization enable fabrikam.com --output json",
			"probe --app mail", "registry backup "+f.path("copy.db")+" --output json --config "+file, "status --admin /nowhere/admin.sock")
	})
}

// blurred replaces what differs from run to run.
func blurred(f files) func(string) string {
	return func(s string) string {
		s = strings.ReplaceAll(s, f.dir, "DIR")
		for _, r := range []struct{ pattern, with string }{
			{`[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:.]+Z`, "TIME"},
			{`\b[0-9]{2}:[0-9]{2}:[0-9]{2}Z`, "TIME"},
			{`\b[0-9]+ s ago`, "SOON ago"},
			{`(RELAY|\S+/127\.0\.0\.1:[0-9]+) +`, "$1  "},
			{`\S+/127\.0\.0\.1:[0-9]+`, "PLACE"},
			{`\b[0-9A-F]{40}\b`, "THUMBPRINT"},
			{`\b[0-9a-f]{64}\b`, "HASH"},
			{`\b[a-z0-9]{26}\b`, "ID"},
			{` +[0-9.]+(µs|ms|s)  `, " TOOK  "},
			{`"version": "[^"]*"`, `"version": "VERSION"`},
			{`"go": "[^"]*"`, `"go": "GO"`},
		} {
			s = regexp.MustCompile(r.pattern).ReplaceAllString(s, r.with)
		}
		return s
	}
}
