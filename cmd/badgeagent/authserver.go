package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/auth/authmetadata"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/enrolment"
)

func (a *app) authServerCommand() *cobra.Command {
	var address, realm string
	set := &cobra.Command{
		Use: "set", Short: "learn from the relay's metadata document whom to talk to",
		Long: `Fetches the relay's auth metadata document over HTTPS and keeps what it says: the
audience of tokens, the issuer, and where the relay takes counts. Repeating it
fetches the document again. Another address than the one kept replaces it, with a
warning.`,
		Example: `  badgeagent auth-server set --metadata-url 'https://relay.example/metadata/json/1?realm=fabrikam.com'
  badgeagent auth-server set --metadata-url https://relay.example/metadata/json/1 --organization fabrikam.com --ca ca.pem`,
		RunE: a.do(func(ctx context.Context, _ []string) error { return a.setAuthServer(ctx, address, realm) }),
	}
	set.Flags().StringVar(&address, "metadata-url", "", "https `address` of the relay's metadata document")
	command.Environment(set.Flags(), "metadata-url")
	organizationFlag(set, &realm, "the organization's `domain`, where the address has no realm")
	a.timeoutFlag(set)
	a.caFlag(set)
	set.Flags().Lookup("ca").Usage = "PEM `file` of the authorities to trust for TLS, kept for the other commands (default: what was given before, or the system's)"
	set.Flags().BoolVar(&a.systemCA, "system-ca", false, "trust the system's authorities again, where a file was given before")
	command.AtMostOne(set, "ca", "system-ca")
	set.PreRunE = func(c *cobra.Command, _ []string) error {
		if a.relay.CAFile == "" && c.Flags().Changed("ca") && !command.FromEnvironment(c, "ca") {
			return command.Usage("--ca is empty; --system-ca trusts the system's authorities again")
		}
		return nil
	}
	a.DryRunFlag(set)
	command.Require(set, "metadata-url")
	show := &cobra.Command{
		Use: "show", Short: "print what is known of the relay",
		RunE: a.do(func(context.Context, []string) error { return a.showAuthServer(a.authServer()) }),
	}
	return a.group("auth-server", "where tokens are taken and whom they are meant for", set, show)
}

func (a *app) setAuthServer(ctx context.Context, address, realm string) error {
	address, err := metadataURL(address, realm)
	if err != nil {
		return command.Usage("%w", err)
	}
	kept, err := a.authServer()
	if err != nil && !errors.Is(err, enrolment.ErrNoAuthServer) {
		return err
	}
	next, err := a.fetchAuthServer(ctx, address, kept)
	if err != nil {
		return err
	}
	if next.Realm == authmetadata.AnyRealm {
		return command.Usage("the document of %s is for no organization in particular, and tokens would be refused; add ?realm=<organization> to the address, or name it with --organization", address)
	}
	if a.systemCA && kept != nil && kept.CAFile != "" {
		a.Warn("the authorities of %s were kept; the system's replace them", kept.CAFile)
	}
	said := "Kept: the relay's metadata has changed."
	switch {
	case kept == nil:
		next.CreatedAt = next.ChangedAt
		said = "Kept: where the relay is, and whom tokens are meant for."
	case kept.MetadataURL != address:
		a.Warn("another metadata address was kept, %s; it is replaced", kept.MetadataURL)
	case next.Same(kept):
		said = "Nothing has changed."
	}
	if a.DryRun {
		a.warnOfRealm(ctx, next)
		return a.wouldWrite([]string{a.keptFile()}, "keep what %s says", address)
	}
	if kept == nil || !next.Same(kept) {
		if err := a.kept().KeepAuthServer(next); err != nil {
			return err
		}
	} else {
		next = kept
	}
	a.Say("%s", said)
	if _, err := a.proxy(); errors.Is(err, enrolment.ErrNoProxy) && next.Realm != "" {
		a.Say("Next: badgeagent proxy enable --organization %s", next.Realm)
	}
	a.warnOfRealm(ctx, next)
	return a.result(next)
}

// acceptTimeout bounds the question whether the relay knows the organization.
const acceptTimeout = 5 * time.Second

// warnOfRealm says where tokens for the document's realm are refused. A relay shows
// a document to whoever asks, for any realm, so that nobody reads its customers off
// it: whether the organization is enrolled only a token tells. Where the relay does
// not answer there is nothing to say: 'badgeagent probe' finds out why.
func (a *app) warnOfRealm(ctx context.Context, server *enrolment.AuthServer) {
	c, err := a.currentCertificate()
	if err != nil || server.Realm == "" {
		return // there is nothing yet to sign a token with
	}
	if !strings.EqualFold(c.Domain, server.Realm) {
		a.Warn("the address is for organization %s, and the certificate in %s is that of %s", server.Realm, a.dir, c.Domain)
	}
	if len(server.Relays) == 0 {
		return
	}
	s := settings{organization: server.Realm, relays: server.Relays, server: server, certificate: c}
	if s.tls, err = tlsConfig(server.CAFile); err != nil {
		return // the document came with it
	}
	if s.token, err = server.NewIssuer(c.Pair, s.organization, 0); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, acceptTimeout)
	defer cancel()
	if refused := s.tryToken(ctx); refused != nil {
		a.Warn("the relay does not take tokens of %s yet: %v", server.Realm, refused)
	}
}

// tryToken returns why the relay refuses the organization's token; nil: it does not,
// or does not answer.
func (s *settings) tryToken(ctx context.Context) error {
	err := s.askRelay(ctx)
	if kind := agent.Explain(err).Kind; kind != agent.FailureToken && kind != agent.FailureRefused {
		return nil
	}
	return s.explain(err)
}

// askRelay makes a call that changes nothing.
func (s *settings) askRelay(ctx context.Context) error {
	config := s.agentConfig()
	config.AgentID = enrolment.NewAgentID(hostName()) // not the daemon, which goes on
	client, err := agent.NewClient(config)
	if err != nil {
		return err
	}
	defer client.Close() // nothing was sent
	_, err = client.ServerInfo(ctx)
	return err
}

// fetchAuthServer fetches the document at address with the roots that are
// given now, or else were given before.
func (a *app) fetchAuthServer(ctx context.Context, address string, kept *enrolment.AuthServer) (*enrolment.AuthServer, error) {
	ca, err := a.caFile(a.relay.CAFile, kept)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	next, err := a.learn(ctx, address, ca)
	if err != nil {
		return nil, err
	}
	next.CAFile, next.ChangedAt = ca, time.Now().UTC().Truncate(time.Second)
	if kept != nil {
		next.CreatedAt = kept.CreatedAt
	}
	return next, nil
}

// metadataURL checks an address, and adds the realm where it has none.
func metadataURL(address, realm string) (string, error) {
	address = strings.TrimSpace(address) // as it is copied out of a mail
	u, err := url.Parse(address)
	if err != nil {
		return "", errors.New("--metadata-url is no address") // which may have a password in it
	}
	if u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("--metadata-url %q is not an https address", u.Redacted())
	}
	if bad := configfile.BadURLPort(address); bad != "" {
		return "", fmt.Errorf("--metadata-url: %s", bad)
	}
	if u.User != nil { // it would be kept, and shown
		return "", fmt.Errorf("--metadata-url %s has a user or a password in it; the document is for everybody", u.Redacted())
	}
	if realm == "" {
		return address, nil
	}
	realm, err = domain(realm)
	if err != nil {
		return "", err
	}
	query := u.Query()
	if given := query.Get("realm"); given != "" && !strings.EqualFold(given, realm) {
		return "", fmt.Errorf("--metadata-url is for realm %s, and --organization is %s", given, realm)
	}
	query.Set("realm", realm)
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// caFile is the file of authorities that is given, or else the one that is kept; empty:
// the system's are trusted.
func (a *app) caFile(given string, kept *enrolment.AuthServer) (string, error) {
	switch {
	case a.systemCA || given == "" && kept == nil:
		return "", nil
	case given != "":
		return filepath.Abs(given)
	}
	return kept.CAFile, nil
}

// learn fetches a metadata document. ca is the file of the authorities that its server
// may have; empty: the machine's.
func (a *app) learn(ctx context.Context, address, ca string) (*enrolment.AuthServer, error) {
	config, err := tlsConfig(ca)
	if err != nil {
		return nil, err
	}
	s, err := enrolment.Learn(ctx, httpClient(config), address)
	return s, explainMetadata(err, address, ca)
}

func httpClient(config *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		DisableKeepAlives: true}}
}

func (a *app) showAuthServer(s *enrolment.AuthServer, err error) error {
	return a.Answer(s, err, "", func() {
		a.List(
			command.Field{"Metadata URL", s.MetadataURL}, command.Field{"Realm", s.Realm}, command.Field{"Principal", s.Principal},
			command.Field{"Issuer", s.Issuer}, command.Field{"Audience", s.Audience}, command.Field{"Relays", strings.Join(s.Relays, ", ")},
			command.Field{"Authorities", cmp.Or(s.CAFile, "the system's")}, command.Field{"Changed", command.Time(s.ChangedAt)}, command.Field{"Created", command.Time(s.CreatedAt)},
		)
	})
}
