package serve

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"badgerelay/cmd/badgeagent/internal/config"
)

// TestMetricsAreDocumented scrapes a daemon with every source, so that a new
// metric can't be forgotten in the operators' list.
func TestMetricsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../../../deploy/mailbox.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(doc), "\n## The agent daemon\n")
	if !found {
		t.Fatal("deploy/mailbox.md has no section on the agent daemon")
	}
	password := filepath.Join(t.TempDir(), "password")
	write(t, password, "secret\n")
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, &config.Config{
			IMAP:    config.IMAP{Address: "127.0.0.1:1", MasterUser: "agent", MasterPasswordFile: password},
			EWS:     config.EWS{URL: "https://127.0.0.1:1/EWS/Exchange.asmx", User: "agent", PasswordFile: password},
			Dovecot: config.Dovecot{Enabled: true, TokenFile: password}, Local: config.Local{TokenFile: password},
		})
		families, err := s.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, f := range families {
			name, ours := strings.CutPrefix(f.GetName(), "badgeagent_")
			if !ours || strings.HasPrefix(name, "promhttp_") {
				continue
			}
			seen++
			if !strings.Contains(section, "`"+name+"`") {
				t.Errorf("deploy/mailbox.md does not tell of badgeagent_%s: %s", name, f.GetHelp())
			}
		}
		if seen < 30 {
			t.Errorf("only %d metrics were seen", seen)
		}
		if err := s.daemon.Close(); err != nil {
			t.Error(err)
		}
	})
}
