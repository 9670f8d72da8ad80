package serve

import (
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/configfile"
)

// reload reads the log level again, and the files that the configuration of the
// start names: their paths wait for a restart with all else. What is wrong leaves
// the old state in force.
func (s *Server) reload() {
	if s.options.Reread == nil {
		return
	}
	next, warnings, err := s.options.Reread()
	if err != nil {
		for _, p := range configfile.Problems(err) {
			s.Log.Error("reload refused; keeping the previous configuration", "problem", p.Error())
		}
		return
	}
	s.Warn(warnings)
	errs := []error{s.local.reload()}
	for name, files := range map[string]configfile.TLS{"local": s.config.Local.TLS, "metadata": s.config.Metadata.TLS} {
		apply, err := s.certificates.Reread(map[string]configfile.TLS{name: files})
		if err == nil {
			apply() // each by itself: one that can't be read keeps no other from being renewed
		}
		errs = append(errs, err)
	}
	for _, reload := range s.reloads {
		errs = append(errs, reload())
	}
	s.Level.Set(next.Log.SlogLevel())
	if err := errors.Join(errs...); err != nil {
		s.Log.Error("reload incomplete", "problem", err)
	} else {
		s.Log.Info("reloaded secrets and log level")
	}
	if restart := needRestart(s.config, next); len(restart) > 0 {
		s.Log.Warn("changed settings that wait for a restart", "sections", restart)
	}
}

// needRestart names the sections that differ in what a reload does not apply.
func needRestart(old, next *config.Config) []string {
	now := *next
	now.Log.Level = old.Log.Level
	return configfile.Changed(*old, now)
}

// access is how a source verifies its mail server and logs in: what files hold,
// and a reload reads again.
type access[Login any] struct {
	field  string                // of the configuration, for errors: "imap"
	caFile string                // empty: the system's authorities
	login  func() (Login, error) // reads the files
	verify atomic.Pointer[tls.Config]

	serverName string                 // in the server's certificate; empty: the name that is dialled
	sessions   tls.ClientSessionCache // nil: none are resumed
}

// read reads the files. On an error what was read before stays.
func (a *access[Login]) read() (Login, error) {
	verify, err := configfile.ClientTLS(a.caFile)
	if err != nil {
		return *new(Login), fmt.Errorf("%s.ca_file: %w", a.field, err)
	}
	verify.ServerName, verify.ClientSessionCache = a.serverName, a.sessions
	login, err := a.login()
	if err != nil {
		return *new(Login), fmt.Errorf("%s.%w", a.field, err)
	}
	a.verify.Store(verify)
	return login, nil
}

// onReload has a reload read a again, and take what it holds.
func onReload[Login any](s *Server, a *access[Login], take func(Login)) {
	s.reloads = append(s.reloads, func() error {
		login, err := a.read()
		if err == nil {
			take(login)
			s.daemon.Retry() // who was refused may be let in now
		}
		return err
	})
}
