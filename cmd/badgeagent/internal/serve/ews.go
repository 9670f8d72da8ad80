package serve

import (
	"crypto/tls"
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
	access := ewsAccess(s.config.EWS)
	login, err := access.read()
	if err != nil {
		return nil, err
	}
	c := ewsConfig(s.config.EWS, access.verify.Load)
	c.Credentials, c.Logger, c.Registerer = login, s.component("ews"), s.own
	built, err := ews.New(c)
	if err != nil {
		return nil, err
	}
	onReload(s, access, built.SetCredentials)
	return built, nil
}

// EWSConfig is what the configuration says of Exchange, for a probe of it.
func EWSConfig(e config.EWS) (ews.Config, error) {
	access := ewsAccess(e)
	login, err := access.read()
	if err != nil {
		return ews.Config{}, err
	}
	c := ewsConfig(e, access.verify.Load)
	c.Credentials = login
	return c, nil
}

// ewsConfig is EWSConfig without the login.
func ewsConfig(e config.EWS, verify func() *tls.Config) ews.Config {
	return ews.Config{
		URL: e.URL, Autodiscover: e.Autodiscover, TLS: verify, Access: e.Access, Folders: e.Folders,
		MailboxesPerStream: e.MailboxesPerStream, MaxRequests: e.MaxRequests,
		PollInterval: time.Duration(e.PollInterval), Timeout: time.Duration(e.Timeout),
	}
}

func ewsAccess(e config.EWS) *access[ews.Credentials] {
	return &access[ews.Credentials]{field: "ews", caFile: e.CAFile, login: func() (ews.Credentials, error) { return ewsLogin(e) }}
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
