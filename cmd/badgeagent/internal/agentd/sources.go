package agentd

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/relay/agent/dovecot"
	"badgerelay/relay/agent/imap"
)

// buildSources makes the sources that the configuration asks for. One that
// needs to be told which mailboxes to watch joins mailboxes.watchers, one that
// can be asked for counts becomes the counter, and one that takes requests
// mounts its handler on local.
func (d *Daemon) buildSources() error {
	if d.config.IMAP.Address != "" {
		if err := d.buildIMAP(); err != nil {
			return err
		}
	}
	return d.takeNotifications()
}

func (d *Daemon) buildIMAP() error {
	secrets := new(imapSecrets)
	login, err := secrets.read(d.config.IMAP)
	if err != nil {
		return err
	}
	c := IMAPConfig(d.config, secrets.tls.Load)
	c.Login, c.Logger, c.Registerer = login, d.component(sourceIMAP), d.own
	c.Mended = d.mailboxes.retry
	s, err := imap.New(c)
	if err != nil {
		return err
	}
	d.counter, d.trouble = s, s.Trouble
	d.sources = append(d.sources, named{sourceIMAP, s})
	d.mailboxes.watchers = append(d.mailboxes.watchers, s)
	d.reloads = append(d.reloads, func() error {
		login, err := secrets.read(d.config.IMAP)
		if err == nil {
			s.SetLogin(login)
			d.mailboxes.retry()
		}
		return err
	})
	return nil
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

// imapSecrets are what a reload reads again.
type imapSecrets struct{ tls atomic.Pointer[tls.Config] }

// read reads the files that c names.
func (s *imapSecrets) read(c config.IMAP) (func(string) (imap.Login, error), error) {
	verify, err := imapTLS(c)
	if err != nil {
		return nil, err
	}
	login, err := imapLogin(c)
	if err == nil {
		s.tls.Store(verify)
	}
	return login, err
}

// IMAPConfig is what the configuration says of the IMAP service, without the
// login, for a source or a probe of it.
func IMAPConfig(c *config.Config, verify func() *tls.Config) imap.Config {
	i := c.IMAP
	return imap.Config{
		Address: i.Address, Security: i.Encryption(), TLS: verify, Suffix: c.Mailboxes.Suffix,
		Folders: i.Counted(), Watch: i.Watching(), MaxConnections: i.Connections(),
		PollInterval: time.Duration(i.PollInterval), Timeout: time.Duration(i.Timeout),
	}
}

// imapTLS returns how the mail server is verified.
func imapTLS(c config.IMAP) (*tls.Config, error) {
	verify := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: c.Host(),
		ClientSessionCache: tls.NewLRUClientSessionCache(0), // mailboxes that take turns connect often
	}
	if c.CAFile == "" {
		return verify, nil
	}
	data, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("imap.ca_file: %w", err)
	}
	verify.RootCAs = x509.NewCertPool()
	if !verify.RootCAs.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("imap.ca_file: %s holds no certificate", c.CAFile)
	}
	return verify, nil
}

// imapLogin returns how to log in for a user.
func imapLogin(c config.IMAP) (func(string) (imap.Login, error), error) {
	if c.MasterUser == "" {
		login, err := imap.CredentialsFile(c.CredentialsFile)
		if err != nil {
			return nil, fmt.Errorf("imap.credentials_file: %w", err)
		}
		return login, nil
	}
	password, err := imap.PasswordFile(c.MasterPasswordFile)
	if err != nil {
		return nil, fmt.Errorf("imap.master_password_file: %w", err)
	}
	return imap.Master(c.MasterUser, password, c.MasterSeparator), nil
}
