package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"

	"badgerelay/auth/certs"
	"badgerelay/relay/agent/enrolment"
)

// kept is the directory with everything that badgeagent keeps.
func (a *app) kept() enrolment.Directory { return enrolment.Directory{Path: a.dir, Protect: protect} }

// missing says of what is not in the directory which one that is, and what makes it; and
// of what can't be read there, how it can be. Other errors stay as they are.
func (a *app) missing(err error) error {
	if damaged, ok := errors.AsType[*certs.DamagedError](err); ok {
		return fmt.Errorf("%w; restore it from a backup%s", err, withoutBackup(damaged.File))
	}
	if errors.Is(err, fs.ErrPermission) && runtime.GOOS != "windows" {
		return fmt.Errorf("%w; run this as root or as the agent's user", err)
	}
	for _, one := range []struct {
		what    error
		command string
	}{
		{enrolment.ErrNoCertificate, "cert ensure --organization ..."},
		{enrolment.ErrNotStaged, "cert stage"},
		{enrolment.ErrNoAuthServer, "auth-server set --metadata-url https://..."},
		{enrolment.ErrNoProxy, "proxy enable --organization ..."},
	} {
		if errors.Is(err, one.what) {
			return fmt.Errorf("%w in %s; run 'badgeagent %s', or name another directory with --dir", err, a.dir, one.command)
		}
	}
	return err
}

// withoutBackup is what to do about a damaged file of which there is no backup.
func withoutBackup(file string) string {
	switch name := filepath.Base(file); name {
	case "auth-server.json":
		return ", or delete it and run 'badgeagent auth-server set --metadata-url https://...'"
	case "proxy.json":
		return ", or delete it and run 'badgeagent proxy enable --organization ...'"
	case "agent.json":
		return ", or delete it: the agent makes another id"
	}
	return fmt.Sprintf(" with the rest of %s; without one, move that directory away, run 'badgeagent cert ensure --organization ...', "+
		"and have the relay's operator register the new certificate", filepath.Dir(file))
}

// rollover reads the certificates that there are.
func (a *app) rollover() (enrolment.Rollover, error) {
	r, err := a.kept().Rollover()
	return r, a.missing(err)
}

func (a *app) authServer() (*enrolment.AuthServer, error) {
	s, err := a.kept().AuthServer()
	return s, a.missing(err)
}

func (a *app) proxy() (*enrolment.Proxy, error) {
	p, err := a.kept().Proxy()
	return p, a.missing(err)
}

func (a *app) currentCertificate() (*enrolment.Certificate, error) {
	c, err := a.kept().Current()
	return c, a.missing(err)
}

// agentID returns the configured id, or the one that the directory keeps.
func (a *app) agentID(configured string) (string, error) {
	if configured != "" {
		return configured, nil
	}
	id, err := a.kept().AgentID(hostName())
	if err = a.missing(err); err != nil {
		return "", fmt.Errorf("keep the agent's id in %s (agent_id in the configuration does without): %w", a.dir, err)
	}
	return id, nil
}
