package agentd

import (
	"context"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/relay/agent/imap"
	"badgerelay/relay/agent/source"
)

// ProbeMailbox is the mailbox that a probe puts its device on. The mail server
// has no such user, so a daemon leaves it alone.
const ProbeMailbox = "badgeagent-probe"

// Count asks the mail server for the count of one mailbox, as a daemon with
// this configuration would. Its error wraps source.ErrMailbox where the server
// answers, and refuses.
func Count(ctx context.Context, c *config.Config, mailbox string) (source.Count, error) {
	secrets := new(imapSecrets)
	login, err := secrets.read(c.IMAP)
	if err != nil {
		return source.Count{}, err
	}
	cfg := IMAPConfig(c, secrets.tls.Load)
	cfg.Login = login
	s, err := imap.New(cfg)
	if err != nil {
		return source.Count{}, err
	}
	return s.Count(ctx, mailbox)
}
