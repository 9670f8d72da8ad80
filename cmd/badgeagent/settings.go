package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"badgerelay/auth"
	"badgerelay/auth/certs"
	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/enrolment"
)

// settings is everything that calling a relay takes, as it is kept.
type settings struct {
	organization string
	relays       []string
	server       *enrolment.AuthServer
	ca           string // the file of the authorities in tls; empty: they are the machine's
	tls          *tls.Config
	certificate  *enrolment.Certificate // the current one
	token        agent.TokenSource

	product, productVersion string // of the mail server the agent speaks for
}

// settings gathers what the directory holds, over which goes what is given. Its error,
// an InvalidError, names everything that is missing.
func (a *app) settings(given config.Relay) (settings, error) {
	s := settings{relays: given.Addresses, product: given.Product, productVersion: given.ProductVersion}
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	p, err := a.proxy()
	switch {
	case err != nil:
		note(err)
	case !p.Enabled:
		note(errors.New("the push notification proxy is disabled; run 'badgeagent proxy enable'"))
	default:
		s.organization = p.Organization
	}
	s.server, err = a.authServer()
	note(err)
	s.certificate, err = a.currentCertificate()
	note(err)
	if s.server != nil && s.organization != "" && s.server.Realm != "" && !strings.EqualFold(s.server.Realm, s.organization) {
		note(realmError(s.server, s.organization))
	}
	s.ca, err = a.caFile(given.CAFile, s.server)
	note(err)
	s.tls, err = tlsConfig(s.ca)
	note(err)
	if s.server != nil && len(s.relays) == 0 {
		s.relays = s.server.Relays
	}
	note(checkRelays(s.relays, s.server != nil))
	if len(errs) > 0 {
		return s, command.Invalid(errors.Join(errs...))
	}
	s.token, err = s.issuer(s.certificate.Pair)
	return s, err
}

// issuer returns what signs tokens for these settings with a certificate's key.
func (s *settings) issuer(pair *certs.Pair) (*auth.Issuer, error) {
	return s.server.NewIssuer(pair, s.organization, 0)
}

// realmError says that the metadata document is that of another organization: a
// token for its audience is refused.
func realmError(s *enrolment.AuthServer, organization string) error {
	return command.Invalidf("the metadata document of %s is for %s, and the organization is %s; run 'badgeagent auth-server set' with the organization's realm in the address",
		s.MetadataURL, s.Realm, organization)
}

func checkRelays(relays []string, expected bool) error {
	if len(relays) == 0 && expected {
		return errors.New("the metadata document names no relay; give --relay host:port")
	}
	for _, r := range relays {
		host, port, err := net.SplitHostPort(r)
		n, named := strconv.Atoi(port) // a service's name does as well
		if err != nil || host == "" || port == "" || named == nil && (n < 1 || n > 65535) {
			return command.Usage("relay %q is not host:port", r)
		}
	}
	return nil
}

// tlsConfig trusts the authorities of a PEM file, or the system's.
func tlsConfig(ca string) (*tls.Config, error) {
	config, err := configfile.ClientTLS(ca)
	if err != nil {
		return nil, command.Invalidf("authorities of --ca: %w", err)
	}
	return config, nil
}

func (s *settings) agentConfig() agent.Config {
	return agent.Config{Addresses: s.relays, TLS: s.tls, Token: s.token, Name: hostName(), Product: s.product, ProductVersion: s.productVersion}
}

// hostName is what the agent calls itself.
func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "badgeagent"
	}
	return name[:min(len(name), 128)]
}

// call makes calls with a client for the kept settings.
func (a *app) call(ctx context.Context, f func(context.Context, *agent.Client) error) error {
	s, err := a.settings(a.relay)
	if err != nil {
		return err
	}
	c, err := agent.NewClient(s.agentConfig())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	err = s.explain(f(ctx, c))
	return errors.Join(err, c.Close())
}

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
