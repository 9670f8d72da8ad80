package serve

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"badgerelay/cmd/badgeagent/internal/config"
)

// The log says what tells of changes, and what only counts.
func TestLogNamesTheSources(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	master := config.IMAP{Address: "127.0.0.1:1", Security: "none", MasterUser: "badgeagent", MasterPasswordFile: password}
	counting := master
	counting.Watch = "off"
	dovecot := config.Dovecot{Enabled: true}
	exchange := config.EWS{URL: "https://127.0.0.1:1/EWS/Exchange.asmx", User: `FABRIKAM\badgeagent`, PasswordFile: password}
	for _, c := range []struct {
		config config.Config
		want   string
	}{
		{config.Config{IMAP: master}, `"sources":["imap"]`},
		{config.Config{IMAP: counting, Dovecot: dovecot}, `"sources":["imap (counts only)","dovecot"]`},
		{config.Config{IMAP: master, Dovecot: dovecot}, `"sources":["imap","dovecot"]`},
		{config.Config{Dovecot: dovecot}, `"sources":["dovecot"]`},
		{config.Config{EWS: exchange}, `"sources":["ews"]`},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			serve(t, newServer(t, &c.config, func(o *Options) { o.Log = io.MultiWriter(t.Output(), &log) }))
			if !strings.Contains(log.String(), c.want) {
				t.Errorf("want %s in\n%s", c.want, log.String())
			}
		})
	}
}
