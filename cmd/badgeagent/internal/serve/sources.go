package serve

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/relay/agent/dovecot"
	"badgerelay/relay/agent/imap"
	"badgerelay/relay/agent/source"
)

// buildSources makes the sources that the configuration asks for. Where several
// count the same mailboxes, the first is asked: Exchange, which says what it does
// not have.
func (s *Server) buildSources() error {
	for _, build := range []func() (source.Source, error){s.buildEWS, s.buildIMAP, s.buildDovecot} {
		built, err := build()
		if err != nil {
			return err
		}
		if built != nil {
			s.sources = append(s.sources, built)
		}
	}
	return nil
}

// sourceNames says what runs, for the log.
func (s *Server) sourceNames() []string {
	var names []string
	for _, each := range s.sources {
		name := each.Name()
		if name == "imap" && s.config.IMAP.Watch == "off" {
			name += " (counts only)"
		}
		names = append(names, name)
	}
	return names
}

// buildIMAP returns the source that watches and counts over IMAP; nil: it is
// not configured.
func (s *Server) buildIMAP() (source.Source, error) {
	if s.config.IMAP.Address == "" {
		return nil, nil //nolint:nilnil // no source is no error
	}
	c, access, err := imapConfig(s.config)
	if err != nil {
		return nil, err
	}
	c.Logger, c.Registerer = s.Component("imap"), s.Metrics
	built, err := imap.New(c)
	if err != nil {
		return nil, err
	}
	onReload(s, access, built.SetLogin)
	return built, nil
}

// CheckIMAP asks the mail server for the count of one mailbox and has it watched
// for a moment, as a server with this configuration would. Its error wraps
// source.ErrMailbox where the server answers, and refuses.
func CheckIMAP(ctx context.Context, c *config.Config, mailbox string) (imap.Checked, error) {
	cfg, _, err := imapConfig(c)
	if err != nil {
		return imap.Checked{}, err
	}
	s, err := imap.New(cfg)
	if err != nil {
		return imap.Checked{}, err
	}
	return s.Check(ctx, mailbox)
}

// buildDovecot returns the source that takes Dovecot's notifications, and mounts
// it on the local listener; nil: it is not configured.
func (s *Server) buildDovecot() (source.Source, error) {
	c := s.config
	if !c.Dovecot.Enabled {
		return nil, nil //nolint:nilnil // no source is no error
	}
	built := dovecot.New(dovecot.Config{
		Mailbox: func(user string) string { return user + c.Mailboxes.Suffix },
		Folders: c.IMAP.Folders, Shared: c.Dovecot.Shared, Blind: c.IMAP.Address == "", Logger: s.Component("dovecot"), Metrics: s.Metrics,
	})
	if err := s.local.Handle(dovecot.Path, c.Dovecot.TokenFile, built); err != nil {
		return nil, fmt.Errorf("dovecot.token_file: %w", err)
	}
	return built, nil
}

func imapConfig(c *config.Config) (imap.Config, *access[func(string) (imap.Login, error)], error) {
	i := c.IMAP
	a := &access[func(string) (imap.Login, error)]{
		field: "imap", caFile: i.CAFile, login: func() (func(string) (imap.Login, error), error) { return imapLogin(i, c.Mailboxes.CaseSensitive) },
		serverName: i.Host(), sessions: tls.NewLRUClientSessionCache(0), // mailboxes that take turns connect often
	}
	login, err := a.read()
	return imap.Config{
		Address: i.Address, Security: i.Encryption(), TLS: a.verify.Load, Login: login,
		Suffix: c.Mailboxes.Suffix, CaseSensitive: c.Mailboxes.CaseSensitive,
		Folders: i.Folders, Watch: i.Watch, MaxConnections: i.MaxConnections,
		PollInterval: time.Duration(i.PollInterval), Timeout: time.Duration(i.Timeout),
	}, a, err
}

// imapLogin returns how to log in for a user.
func imapLogin(c config.IMAP, caseSensitive bool) (func(string) (imap.Login, error), error) {
	if c.MasterUser == "" {
		login, err := imap.CredentialsFile(c.CredentialsFile, caseSensitive)
		if err != nil {
			return nil, fmt.Errorf("credentials_file: %w", err)
		}
		return login, nil
	}
	password, err := imap.PasswordFile(c.MasterPasswordFile)
	if err != nil {
		return nil, fmt.Errorf("master_password_file: %w", err)
	}
	return imap.Master(c.MasterUser, password, c.MasterSeparator), nil
}
