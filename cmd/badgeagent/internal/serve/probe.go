package serve

import (
	"context"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/relay/agent/imap"
	"badgerelay/relay/agent/source"
)

// Count asks the mail server for the count of one mailbox, as a server with
// this configuration would. Its error wraps source.ErrMailbox where the server
// answers, and refuses.
func Count(ctx context.Context, c *config.Config, mailbox string) (source.Count, error) {
	access := imapAccess(c.IMAP)
	login, err := access.read()
	if err != nil {
		return source.Count{}, err
	}
	cfg := imapConfig(c, access.verify.Load)
	cfg.Login = login
	s, err := imap.New(cfg)
	if err != nil {
		return source.Count{}, err
	}
	return s.Count(ctx, mailbox)
}
