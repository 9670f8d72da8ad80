package serve

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"

	"badgerelay/cmd/internal/configfile"
)

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
