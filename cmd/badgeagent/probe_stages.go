package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/check"
	"badgerelay/relay/agent/daemon"
	"badgerelay/relay/agent/enrolment"
)

// expiryNotice is how long before its end a certificate asks for attention:
// time for a roll-over with notice to the relay's operator.
const expiryNotice = 30 * 24 * time.Hour

// probe is what the stages know so far.
type probe struct {
	app       *app
	wanted    agent.Subscription // whose app and mailbox are tried; without, those of known
	settings  settings
	addresses []string // those of the relays that answered so far
	conns     map[string]net.Conn
	client    *agent.Client
	refused   error // the relay accepted the token and refused the agent
	info      agent.ServerInfo
	known     agent.Subscription // one that there is; zero: none
	daemon    *config.Config     // the daemon's configuration; nil: there is none
}

func (p *probe) close() {
	for _, conn := range p.conns {
		_ = conn.Close() // nothing was written
	}
	if p.client != nil {
		_ = p.client.Close() // the probe has its result
	}
}

func (p *probe) configuration(context.Context) (string, error) {
	if err := p.daemonConfig(); err != nil {
		return "", err
	}
	relay := p.app.relay
	if c := p.daemon; c != nil { // as the daemon reaches the relay
		if len(relay.Addresses) == 0 {
			relay.Addresses = c.Relay.Addresses
		}
		relay.CAFile = cmp.Or(relay.CAFile, c.Relay.CAFile)
		relay.Product, relay.ProductVersion = cmp.Or(relay.Product, c.Relay.Product), cmp.Or(relay.ProductVersion, c.Relay.ProductVersion)
	}
	s, err := p.app.settings(relay)
	if err != nil {
		return "", err
	}
	p.settings, p.addresses = s, s.relays
	for _, address := range s.relays {
		if _, err := check.RouteTo(address); err != nil {
			return "", command.Invalid(err)
		}
	}
	return fmt.Sprintf("organization %s, relay %s", s.organization, strings.Join(s.relays, ", ")), nil
}

func (p *probe) certificate(context.Context) (string, error) {
	c := p.settings.certificate
	detail := fmt.Sprintf("%s of %s, %s", c.Thumbprint(), c.Domain, daysLeft(c.NotAfter))
	switch now := time.Now(); {
	case now.Before(c.NotBefore):
		return "", explain(errors.New("certificate is not valid yet"), "valid from %s only", command.Time(c.NotBefore))
	case now.After(c.NotAfter):
		return "", explain(errors.New("certificate has expired"), "expired on %s; make a new one with 'badgeagent cert ensure'", command.Time(c.NotAfter))
	case c.NotAfter.Sub(now) < expiryNotice:
		return detail, doubtful("roll over with 'badgeagent cert stage'")
	}
	return detail, nil
}

// each runs a step for each relay's address. Relays that fail drop out; the
// stage fails when none is left.
func (p *probe) each(step func(address string) (string, error)) (string, error) {
	var details, left []string
	var errs []error
	for _, address := range p.addresses {
		detail, err := step(address)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", address, err))
			continue
		}
		left, details = append(left, address), append(details, detail)
	}
	if len(left) == 0 {
		return "", errors.Join(errs...)
	}
	p.addresses = left
	if len(errs) > 0 {
		return strings.Join(details, "; "), doubtful("%s", oneLine(errors.Join(errs...).Error()))
	}
	return strings.Join(details, "; "), nil
}

func (p *probe) resolve(ctx context.Context) (string, error) {
	return p.each(func(address string) (string, error) {
		route, err := check.RouteTo(address)
		if err != nil {
			return "", err
		}
		host, _, err := net.SplitHostPort(route.FirstHop()) // a proxy looks up the relay's name
		if err != nil {
			return "", err
		}
		found, err := net.DefaultResolver.LookupHost(ctx, host)
		if unknown, ok := errors.AsType[*net.DNSError](err); ok && unknown.IsNotFound && route.Proxied() {
			return "", explain(err, "there is no host of the name in %s; check HTTPS_PROXY", route.FirstHop())
		}
		if unknown, ok := errors.AsType[*net.DNSError](err); ok && unknown.IsNotFound {
			return "", explain(err, "%s", p.settings.unreachableAdvice(route.FirstHop(), err.Error()))
		}
		if err != nil {
			return "", explain(err, "the name of %s can't be looked up; check which name servers this machine asks", route.FirstHop())
		}
		return fmt.Sprintf("%s is %s", host, strings.Join(found, ", ")), nil
	})
}

func (p *probe) connect(ctx context.Context) (string, error) {
	p.conns = make(map[string]net.Conn)
	return p.each(func(address string) (string, error) {
		route, err := check.RouteTo(address)
		if err != nil {
			return "", err
		}
		conn, err := route.Dial(ctx)
		switch {
		case err != nil && route.Proxied():
			return "", err
		case err != nil:
			return "", explain(err, "%s", p.settings.unreachableAdvice(address, err.Error()))
		}
		p.conns[address] = conn
		if route.Proxied() {
			return fmt.Sprintf("connected to %s through the proxy %s", address, route.FirstHop()), nil
		}
		return "connected to " + conn.RemoteAddr().String(), nil
	})
}

func (p *probe) handshake(ctx context.Context) (string, error) {
	return p.each(func(address string) (string, error) {
		host, _, _ := net.SplitHostPort(address) // resolve has split it
		config := p.settings.tls.Clone()
		config.ServerName, config.NextProtos = host, []string{"h2"}
		conn := tls.Client(p.conns[address], config)
		p.conns[address] = conn
		if err := conn.HandshakeContext(ctx); err != nil {
			return "", p.settings.explainTLS(err, address)
		}
		state := conn.ConnectionState()
		if state.NegotiatedProtocol != "h2" {
			return "", explain(errors.New("the server does not speak HTTP/2"), "%s", p.settings.unreachableAdvice(address, "tls: no application protocol"))
		}
		leaf := state.PeerCertificates[0]
		return fmt.Sprintf("%s, certificate of %s, %s", tls.VersionName(state.Version), host, daysLeft(leaf.NotAfter)), nil
	})
}

// explainTLS says what to do where no TLS connection came about with an address.
func (s *settings) explainTLS(err error, address string) error {
	host, _, _ := net.SplitHostPort(address) // resolve has split it
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return explain(err, "the certificate of %s is not valid at this time; check this machine's clock, and tell the relay's operator", host)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return explain(err, "%s", unknownAuthority(host, s.ca))
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return explain(err, "the relay's certificate does not name %s; check the relay's address, and tell its operator if it is right", host)
	}
	return explain(err, "%s", s.unreachableAdvice(address, err.Error()))
}

func (p *probe) metadata(ctx context.Context) (string, error) {
	kept := p.settings.server
	now, err := p.app.learn(ctx, kept.MetadataURL, p.settings.ca)
	if err != nil {
		return "", err
	}
	if now.Audience != kept.Audience {
		return "", explain(fmt.Errorf("audience is %s now, and %s is kept", now.Audience, kept.Audience), "the document's audience is %s and no longer %s; if that is meant, run 'badgeagent auth-server set' again, and otherwise tell the relay's operator (auth.authorities)",
			now.Audience, kept.Audience)
	}
	if strings.Join(now.Relays, " ") != strings.Join(kept.Relays, " ") {
		return kept.MetadataURL, doubtful("the relays have changed; run 'badgeagent auth-server set' again")
	}
	return kept.MetadataURL, nil
}

func (p *probe) token(ctx context.Context) (string, error) {
	cfg := p.settings.agentConfig()
	cfg.Addresses, cfg.AgentID = p.addresses, enrolment.NewAgentID(hostName()) // not the daemon, which goes on
	client, err := agent.NewClient(cfg)
	if err != nil {
		return "", err
	}
	p.client = client
	p.info, err = client.ServerInfo(ctx)
	if err == nil {
		return fmt.Sprintf("accepted until %s", command.Time(p.info.TokenExpiresAt)), nil
	}
	f := agent.Explain(err)
	if f.Kind == agent.FailureRefused {
		p.refused = err
		return "accepted", nil
	}
	return "", p.settings.explain(err)
}

func (p *probe) organization(context.Context) (string, error) {
	if p.refused != nil {
		return "", p.settings.explain(p.refused)
	}
	return fmt.Sprintf("%s is enabled; relay %s, instance %s", p.settings.organization, p.info.Relay, p.info.Instance), nil
}

func (p *probe) subscriptions(ctx context.Context) (string, error) {
	for s, err := range p.client.List(ctx, agent.Filter{PageSize: 2}) {
		if err != nil {
			return "", p.settings.explain(err)
		}
		if s.Mailbox == daemon.ProbeMailbox {
			continue // an earlier probe's
		}
		p.known = s
		return "can be read", nil
	}
	return "can be read; there are none yet", nil
}
