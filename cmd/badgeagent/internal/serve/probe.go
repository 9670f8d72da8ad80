package serve

import (
	"context"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/relay/agent/imap"
)

// CheckIMAP asks the mail server for the count of one mailbox and has it watched
// for a moment, as a server with this configuration would. Its error wraps
// source.ErrMailbox where the server answers, and refuses.
func CheckIMAP(ctx context.Context, c *config.Config, mailbox string) (imap.Checked, error) {
	access := imapAccess(c.IMAP)
	login, err := access.read()
	if err != nil {
		return imap.Checked{}, err
	}
	cfg := imapConfig(c, access.verify.Load)
	cfg.Login = login
	s, err := imap.New(cfg)
	if err != nil {
		return imap.Checked{}, err
	}
	return s.Check(ctx, mailbox)
}
