package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent/enrolment"

	"github.com/spf13/cobra"
)

// What Exchange calls the object that Enable-PushNotificationProxy changes.
const (
	proxyName        = "OnPrem-Proxy"
	proxyDisplayName = "On Premises Proxy app"
	exchangeVersion  = "0.20 (15.0.0.0)"
	exchangeTime     = "1/2/2006 3:04:05 PM" // in the United States' form
)

// exchangeBool is how Exchange prints a boolean.
var exchangeBool = map[bool]string{true: "True", false: "False"}

// proxyFields are what Enable-PushNotificationProxy prints of the proxy.
func proxyFields(p *enrolment.Proxy) []command.Field {
	return []command.Field{
		{"DisplayName", proxyDisplayName},
		{"Enabled", exchangeBool[p.Enabled]},
		{"Organization", p.Organization},
		{"Uri", p.URI},
		{"Identity", proxyName},
		{"IsValid", exchangeBool[p.Valid()]},
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

// proxyObject is the same for programs.
func proxyObject(p *enrolment.Proxy) any {
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
	}{proxyDisplayName, p.Enabled, p.Organization, p.URI, proxyName, p.Valid(), exchangeVersion, proxyName, p.GUID,
		p.WhenChanged.UTC(), p.WhenCreated.UTC(), "Unchanged"}
}

func (a *app) showProxy(p *enrolment.Proxy, err error) error {
	if err != nil {
		return err
	}
	return a.Print(proxyObject(p), func() { a.List(proxyFields(p)...) })
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
	enable.Flags().StringVar(&uri, "uri", "", "the https `address` that is shown as Uri, and nothing else: counts go to the relays of the metadata document (default: the first of these)")
	a.DryRunFlag(enable)
	show := &cobra.Command{
		Use: "show", Short: "print the push notification proxy's settings",
		RunE: a.do(func(context.Context, []string) error { return a.showProxy(a.proxy()) }),
	}
	disable := &cobra.Command{
		Use: "disable", Short: "switch the push notification proxy off",
		RunE: a.do(func(context.Context, []string) error { return a.disableProxy() }),
	}
	a.DryRunFlag(disable)
	return a.group("proxy", "switch sending of unread counts on and off", enable, show, disable)
}

func (a *app) enableProxy(organization, uri string) error {
	p, err := a.proxy()
	if errors.Is(err, enrolment.ErrNoProxy) {
		p, err = enrolment.NewProxy(), nil
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
	if !next.Valid() {
		return command.Usage("--uri is not an https address, without a user or a password in it")
	}
	if c, err := a.currentCertificate(); err == nil && !strings.EqualFold(c.Domain, next.Organization) {
		a.Warn("the certificate in %s is that of %s, not of %s", a.dir, c.Domain, next.Organization)
	}
	return a.changeProxy(p, &next, "enable")
}

// proxyURI is what is shown as the proxy's address: as given, as kept, or as the relay's metadata
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
	if errors.Is(err, enrolment.ErrNoProxy) {
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
func (a *app) changeProxy(p, next *enrolment.Proxy, verb string) error {
	if a.DryRun {
		return a.wouldWrite([]string{a.keptFile()}, "%s the push notification proxy for %s, %s", verb, next.Organization, next.URI)
	}
	if err := a.kept().ChangeProxy(p, next); err != nil {
		return err
	}
	return a.showProxy(next, nil)
}

// domain returns an organization's name in the form in which it is compared.
func domain(name string) (string, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if len(name) > 253 || !aDomain.MatchString(name) {
		return "", fmt.Errorf("%q is not a domain name of letters from a to z, digits, hyphens and dots; DNS writes other letters with xn--", name)
	}
	return name, nil
}

// aDomain is what the relay enrols.
var aDomain = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
