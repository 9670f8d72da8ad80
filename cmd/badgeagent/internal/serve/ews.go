package serve

import (
	"fmt"
	"time"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/relay/agent/ews"
	"badgerelay/relay/agent/imap"
	"badgerelay/relay/agent/source"
)

// buildEWS returns the source that watches and counts at Exchange; nil: it is not
// configured.
func (s *Server) buildEWS() (source.Source, error) {
	if !s.config.EWS.Enabled() {
		return nil, nil //nolint:nilnil // no source is no error
	}
	c, access, err := ewsConfig(s.config.EWS)
	if err != nil {
		return nil, err
	}
	c.Logger, c.Registerer = s.Component("ews"), s.Metrics
	built, err := ews.New(c)
	if err != nil {
		return nil, err
	}
	onReload(s, access, built.SetCredentials)
	return built, nil
}

// EWSConfig is what the configuration says of Exchange, for a probe of it.
func EWSConfig(e config.EWS) (ews.Config, error) {
	c, _, err := ewsConfig(e)
	return c, err
}

func ewsConfig(e config.EWS) (ews.Config, *access[ews.Credentials], error) {
	a := &access[ews.Credentials]{field: "ews", caFile: e.CAFile, login: func() (ews.Credentials, error) { return ewsLogin(e) }}
	login, err := a.read()
	return ews.Config{
		URL: e.URL, Autodiscover: e.Autodiscover, TLS: a.verify.Load, Credentials: login, Access: e.Access, Folders: e.Folders,
		MailboxesPerStream: e.MailboxesPerStream, MaxRequests: e.MaxRequests,
		PollInterval: time.Duration(e.PollInterval), Timeout: time.Duration(e.Timeout),
	}, a, err
}

// ewsLogin returns who the agent is to Exchange.
func ewsLogin(e config.EWS) (ews.Credentials, error) {
	switch e.Scheme() {
	case config.AuthNegotiate:
		login, err := ews.KeytabLogin(ews.Keytab{Principal: e.User, File: e.KeytabFile, Config: e.KerberosConfig, Service: e.ServicePrincipal})
		if err != nil {
			return nil, fmt.Errorf("keytab_file: %w", err)
		}
		return login, nil
	case config.AuthWindows:
		login, err := ews.WindowsLogin(e.ServicePrincipal)
		if err != nil {
			return nil, fmt.Errorf("authentication: %w", err)
		}
		return login, nil
	}
	password, err := imap.PasswordFile(e.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("password_file: %w", err)
	}
	if e.Scheme() == config.AuthBasic {
		return ews.BasicLogin(e.User, password), nil
	}
	return ews.NTLMLogin(e.User, password), nil
}
