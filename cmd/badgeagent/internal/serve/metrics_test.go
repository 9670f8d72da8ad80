package serve

import (
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/common/expfmt"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/process"
	"badgerelay/cmd/internal/reference"
)

// TestReference scrapes a daemon with every source, so that a new metric can't be
// forgotten in the operators' list.
func TestReference(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	write(t, password, "secret\n")
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, &config.Config{
			IMAP:    config.IMAP{Address: "127.0.0.1:1", MasterUser: "agent", MasterPasswordFile: password},
			EWS:     config.EWS{URL: "https://127.0.0.1:1/EWS/Exchange.asmx", User: "agent", PasswordFile: password},
			Dovecot: config.Dovecot{Enabled: true, TokenFile: password}, Local: config.Local{TokenFile: password},
		})
		s.All.MustRegister(process.RefusedGuests()) // as the metadata listener does, once it is open
		families, err := s.All.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, f := range families {
			if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
				t.Fatal(err)
			}
		}
		reference.Compare(t, "../../../../deploy/mailbox.md", "metrics", reference.Metrics(t, "badgeagent_", text.String()))
		if err := s.daemon.Close(); err != nil {
			t.Error(err)
		}
	})
}
