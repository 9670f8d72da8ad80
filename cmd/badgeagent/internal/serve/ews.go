package serve

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync/atomic"
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
	secrets := new(ewsSecrets)
	login, err := secrets.read(s.config.EWS)
	if err != nil {
		return nil, err
	}
	c := ewsConfig(s.config.EWS, secrets.tls.Load)
	c.Credentials, c.Logger, c.Registerer = login, s.component("ews"), s.own
	built, err := ews.New(c)
	if err != nil {
		return nil, err
	}
	s.reloads = append(s.reloads, func() error {
		login, err := secrets.read(s.config.EWS)
		if err == nil {
			built.SetCredentials(login)
			s.daemon.Retry()
		}
		return err
	})
	return built, nil
}

// EWSConfig is what the configuration says of Exchange, for a probe of it.
func EWSConfig(e config.EWS) (ews.Config, error) {
	secrets := new(ewsSecrets)
	login, err := secrets.read(e)
	if err != nil {
		return ews.Config{}, err
	}
	c := ewsConfig(e, secrets.tls.Load)
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

// ewsSecrets are what a reload reads again.
type ewsSecrets struct{ tls atomic.Pointer[tls.Config] }

// read reads the files that e names.
func (s *ewsSecrets) read(e config.EWS) (ews.Credentials, error) {
	verify := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CAFile != "" {
		data, err := os.ReadFile(e.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ews.ca_file: %w", err)
		}
		verify.RootCAs = x509.NewCertPool()
		if !verify.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("ews.ca_file: %s holds no certificate", e.CAFile)
		}
	}
	login, err := ewsLogin(e)
	if err == nil {
		s.tls.Store(verify)
	}
	return login, err
}

// ewsLogin returns who the agent is to Exchange.
func ewsLogin(e config.EWS) (ews.Credentials, error) {
	switch e.Scheme() {
	case config.AuthNegotiate:
		login, err := ews.KeytabLogin(ews.Keytab{Principal: e.User, File: e.KeytabFile, Config: e.KerberosConfig, Service: e.ServicePrincipal})
		if err != nil {
			return nil, fmt.Errorf("ews.keytab_file: %w", err)
		}
		return login, nil
	case config.AuthWindows:
		login, err := ews.WindowsLogin(e.ServicePrincipal)
		if err != nil {
			return nil, fmt.Errorf("ews.authentication: %w", err)
		}
		return login, nil
	}
	password, err := imap.PasswordFile(e.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("ews.password_file: %w", err)
	}
	if e.Scheme() == config.AuthBasic {
		return ews.BasicLogin(e.User, password), nil
	}
	return ews.NTLMLogin(e.User, password), nil
}
