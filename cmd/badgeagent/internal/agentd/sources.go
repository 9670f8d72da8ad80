package agentd

import "badgerelay/cmd/badgeagent/internal/dovecot"

// buildSources makes the sources that the configuration asks for. One that
// needs to be told which mailboxes to watch joins mailboxes.watchers, one that
// can be asked for counts becomes the counter, and one that takes requests
// mounts its handler on local.
func (d *Daemon) buildSources() error {
	return d.takeNotifications()
}

// takeNotifications mounts what Dovecot notifies.
func (d *Daemon) takeNotifications() error {
	c := d.config
	if !c.Dovecot.Enabled {
		return nil
	}
	handler := dovecot.New(dovecot.Config{
		Sink: d.sink(sourceDovecot), Mailbox: func(user string) string { return user + c.Mailboxes.Suffix },
		Folders: c.IMAP.Counted(), Blind: d.counter == nil, Logger: d.component("dovecot"), Metrics: d.own,
	})
	return d.local.Handle(dovecot.Path, c.Dovecot.TokenFile, handler)
}
