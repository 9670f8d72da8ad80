package main

import (
	"errors"
	"fmt"

	"badgerelay/relay/agent/enrolment"
)

// kept is the directory with everything that badgeagent keeps.
func (a *app) kept() enrolment.Directory { return enrolment.Directory{Path: a.dir, Protect: protect} }

// missing says of what is not in the directory which one that is, and what makes it.
// Other errors stay as they are.
func (a *app) missing(err error) error {
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
	if err != nil {
		return "", fmt.Errorf("keep the agent's id in %s (agent_id in the configuration does without): %w", a.dir, err)
	}
	return id, nil
}
