package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"badgerelay/cmd/internal/command"

	"github.com/spf13/cobra"
)

// What Exchange calls the object that Enable-PushNotificationProxy changes.
const (
	proxyName        = "OnPrem-Proxy"
	proxyDisplayName = "On Premises Proxy app"
	exchangeVersion  = "0.20 (15.0.0.0)"
)

// proxy is the push notification proxy: whether, for whom and whither counts
// are sent.
type proxy struct {
	Enabled      bool      `json:"enabled"`
	Organization string    `json:"organization"`
	URI          string    `json:"uri"`
	GUID         string    `json:"guid"`
	WhenChanged  time.Time `json:"changedAt"`
	WhenCreated  time.Time `json:"createdAt"`
}

func (p *proxy) valid() bool {
	u, err := url.Parse(p.URI)
	return p.Organization != "" && err == nil && u.Scheme == "https" && u.Host != ""
}

// fields are what Enable-PushNotificationProxy prints of it.
func (p *proxy) fields() []command.Field {
	return []command.Field{
		{"DisplayName", proxyDisplayName},
		{"Enabled", title(p.Enabled)},
		{"Organization", p.Organization},
		{"Uri", p.URI},
		{"Identity", proxyName},
		{"IsValid", title(p.valid())},
		{"ExchangeVersion", exchangeVersion},
		{"Name", proxyName},
		{"Guid", p.GUID},
		{"WhenChanged", p.WhenChanged.Local().Format(exchangeTime)},
		{"WhenCreated", p.WhenCreated.Local().Format(exchangeTime)},
		{"WhenChangedUTC", p.WhenChanged.UTC().Format(exchangeTime)},
		{"WhenCreatedUTC", p.WhenCreated.UTC().Format(exchangeTime)},
		{"ObjectState", "Unchanged"},
	}
}

// object is the same for programs.
func (p *proxy) object() any {
	return struct {
		DisplayName     string    `json:"displayName"`
		Enabled         bool      `json:"enabled"`
		Organization    string    `json:"organization"`
		URI             string    `json:"uri"`
		Identity        string    `json:"identity"`
		IsValid         bool      `json:"isValid"`
		ExchangeVersion string    `json:"exchangeVersion"`
		Name            string    `json:"name"`
		GUID            string    `json:"guid"`
		WhenChangedUTC  time.Time `json:"whenChangedUTC"`
		WhenCreatedUTC  time.Time `json:"whenCreatedUTC"`
		ObjectState     string    `json:"objectState"`
	}{proxyDisplayName, p.Enabled, p.Organization, p.URI, proxyName, p.valid(), exchangeVersion, proxyName, p.GUID,
		p.WhenChanged.UTC(), p.WhenCreated.UTC(), "Unchanged"}
}

func (a *app) showProxy(p *proxy) error {
	if !a.JSON() {
		a.List(p.fields()...)
	}
	return a.result(p.object())
}

func (a *app) proxyCommand() *cobra.Command {
	var organization, uri string
	enable := &cobra.Command{
		Use: "enable", Short: "switch the push notification proxy on",
		Long: `Switches the push notification proxy on: from now on unread counts of the
organization's mailboxes are sent to the relay. Prints the proxy's settings as
Exchange's Enable-PushNotificationProxy does.`,
		Example: `  badgeagent proxy enable --organization fabrikam.com
  badgeagent proxy enable --organization fabrikam.com --dry-run`,
		RunE: a.do(func(context.Context, []string) error { return a.enableProxy(organization, uri) }),
	}
	organizationFlag(enable, &organization, "the organization's `domain`, as the relay's operator enrolled it")
	enable.Flags().StringVar(&uri, "uri", "", "the relay's https `address` (default: what the metadata document says)")
	a.dryRunFlag(enable)
	show := &cobra.Command{
		Use: "show", Short: "print the push notification proxy's settings",
		RunE: a.do(func(context.Context, []string) error {
			p, err := a.proxy()
			if err != nil {
				return err
			}
			return a.showProxy(p)
		}),
	}
	disable := &cobra.Command{
		Use: "disable", Short: "switch the push notification proxy off",
		RunE: a.do(func(context.Context, []string) error { return a.disableProxy() }),
	}
	a.dryRunFlag(disable)
	return a.group("proxy", "switch sending of unread counts on and off", enable, show, disable)
}

var errNoProxy = errors.New("the push notification proxy was never enabled")

// proxy returns the settings as they are kept.
func (a *app) proxy() (*proxy, error) {
	p := &proxy{}
	there, err := a.load(proxyFile, p)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, a.missing(errNoProxy)
	}
	return p, nil
}

func (a *app) enableProxy(organization, uri string) error {
	p, err := a.proxy()
	if errors.Is(err, errNoProxy) {
		now := time.Now().UTC().Truncate(time.Second)
		p, err = &proxy{GUID: newGUID(), WhenCreated: now, WhenChanged: now}, nil
	}
	if err != nil {
		return err
	}
	next := *p
	next.Enabled = true
	if organization != "" {
		if next.Organization, err = domain(organization); err != nil {
			return command.Usage("%w", err)
		}
	}
	if next.Organization == "" {
		return command.Usage("name the organization with --organization, or in $BADGEAGENT_ORGANIZATION")
	}
	if server, err := a.authServer(); err == nil && server.Realm != "" && !strings.EqualFold(server.Realm, next.Organization) {
		return realmError(server, next.Organization)
	}
	if next.URI, err = a.proxyURI(uri, p.URI); err != nil {
		return err
	}
	if !next.valid() {
		return command.Usage("%q is not an https address", next.URI)
	}
	if c, err := a.currentCertificate(); err == nil && !strings.EqualFold(c.domain, next.Organization) {
		a.Warn("the certificate in %s is that of %s, not of %s", a.dir, c.domain, next.Organization)
	}
	return a.changeProxy(p, &next, "enable")
}

// proxyURI is where counts go: as given, as kept, or as the relay's metadata
// document says.
func (a *app) proxyURI(given, kept string) (string, error) {
	if given != "" {
		return given, nil
	}
	server, err := a.authServer()
	if err == nil && len(server.Relays) > 0 {
		return "https://" + server.Relays[0], nil
	}
	if kept != "" {
		return kept, nil
	}
	if err == nil {
		err = errors.New("the metadata document names no relay; give --uri")
	}
	return "", err
}

func (a *app) disableProxy() error {
	p, err := a.proxy()
	if errors.Is(err, errNoProxy) {
		a.Say("The push notification proxy was not enabled.")
		return a.result(struct {
			Enabled bool `json:"enabled"`
		}{})
	}
	if err != nil {
		return err
	}
	next := *p
	next.Enabled = false
	return a.changeProxy(p, &next, "disable")
}

// changeProxy keeps next unless it says what p does, and prints it.
func (a *app) changeProxy(p, next *proxy, verb string) error {
	if a.dryRun {
		return a.Would("%s the push notification proxy for %s, %s", verb, next.Organization, next.URI)
	}
	if *next != *p {
		next.WhenChanged = time.Now().UTC().Truncate(time.Second)
		if err := a.store(proxyFile, next); err != nil {
			return err
		}
	}
	return a.showProxy(next)
}

// domain returns an organization's name in the form in which it is compared.
func domain(name string) (string, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "" || len(name) > 253 || strings.ContainsAny(name, " \t\r\n/@:?#[]\\") {
		return "", fmt.Errorf("%q is not a domain name", name)
	}
	return name, nil
}

// newGUID returns a random identifier (RFC 9562, version 4).
func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, Go 1.24
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}
