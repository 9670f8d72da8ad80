package daemon

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"time"

	"badgerelay/apns"
	"badgerelay/cmd/badgerelay/internal/statuspage"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// withPage serves the page beside the rest of the ops listener.
func withPage(rest http.Handler, page *statuspage.Page) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", rest)
	page.Register(mux)
	return mux
}

// statusKey returns what makes keys to the page; nil where there is none.
func (d *daemon) statusKey(listeners *listeners) func() (string, time.Time, string) {
	if listeners.ops == nil {
		return nil
	}
	return func() (string, time.Time, string) {
		key, end := d.pageKeys.Create()
		return key, end, "http://" + listeners.ops.Addr().String() + "/status"
	}
}

// organizationsShown is the most that the page lists; a list of thousands is
// for the command line.
const organizationsShown = 100

// pageStatus is what the status page shows. Before it is ready there is nothing to ask.
func (d *daemon) pageStatus(ctx context.Context, details bool) (s *statuspage.Status, notReady string) {
	s = &statuspage.Status{Version: d.version, Go: runtime.Version(), Started: d.started.UTC()}
	if d.ready.get() == "starting" {
		return s, "starting"
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	stats, ledger := d.relay.Stats(), d.relay.Ledger()
	s.Load = &statuspage.Load{
		Streams: stats.Streams, Mailboxes: stats.Mailboxes, Devices: stats.Devices,
		DevicesQueued: stats.Queued, DevicesWaiting: stats.Waiting,
	}
	s.Events = &statuspage.Events{Accepted: ledger.Accepted, Pending: ledger.Pending}
	for o, n := range ledger.Outcomes {
		s.Events.Outcomes = append(s.Events.Outcomes, statuspage.Count{Name: relay.Outcome(o).String(), Total: n})
	}
	for _, a := range d.apps.all() {
		s.Apps = append(s.Apps, a.pageStatus(stats.Breakers[a.name], d.relay.Health(a.name)))
	}
	for _, name := range []string{"listen", "admin", "metadata"} {
		if leaf := d.certs.Leaf(name); leaf != nil {
			s.Certificates = append(s.Certificates, statuspage.Certificate{Listener: name, End: leaf.NotAfter.UTC()})
		}
	}
	s.Registry = d.pageRegistry(ctx)
	if details {
		s.Details = d.pageDetails(ctx)
	}
	u := d.notReady(ctx)
	if details {
		return s, u.whole()
	}
	return s, u.reason
}

func (a *app) pageStatus(breaker bool, health relay.Health) statuspage.App {
	s := a.pool.Stats()
	shown := statuspage.App{
		Name: a.name, State: appState(s, health), Quarantined: health.Quarantined, Breaker: breaker, Connections: s.Connections, StreamsGranted: s.StreamsGranted,
		PushesInFlight: s.InFlight, TokenAge: statuspage.Seconds(s.TokenAge.Seconds()), CertificateEnd: s.CertificateEnd.UTC(),
		Topic: s.Topic, Environment: "production",
	}
	if s.CertificateEnd.IsZero() {
		shown.CertificateEnd = time.Time{}
	}
	if s.Environment == apns.Sandbox {
		shown.Environment = "sandbox"
	}
	if s.LastError != nil {
		shown.LastError = s.LastError.Error()
	}
	return shown
}

func (d *daemon) pageRegistry(ctx context.Context) *statuspage.Registry {
	counts, err := d.registry.Counts(ctx)
	return &statuspage.Registry{
		Organizations: counts.Organizations, Credentials: counts.Credentials,
		Mailboxes: counts.Mailboxes, Subscriptions: counts.Subscriptions, Failed: err != nil,
	}
}

// pageDetails lists organizations; what the registry does not tell is missing.
func (d *daemon) pageDetails(ctx context.Context) *statuspage.Details {
	details := &statuspage.Details{Instance: d.instance, Relays: d.pageRelays(ctx), Organizations: []statuspage.Organization{}}
	organizations, next, err := d.registry.ListOrganizations(ctx, registry.OrganizationFilter{}, registry.Page{Size: organizationsShown})
	if err != nil {
		return details // the page says that the registry does not answer
	}
	details.More = next != ""
	for i := range organizations {
		details.Organizations = append(details.Organizations, d.pageOrganization(ctx, &organizations[i]))
	}
	return details
}

func (d *daemon) pageRelays(ctx context.Context) []statuspage.Relay {
	shown := []statuspage.Relay{}
	answer, err := d.admin.Relays(ctx)
	if err != nil {
		d.logger.Error("relays not listed", "error", err)
	}
	for _, r := range answer.GetRelays() {
		s := r.GetStatus()
		one := statuspage.Relay{
			Name: r.GetName(), State: strings.ToLower(strings.TrimPrefix(r.GetState().String(), "RELAY_STATE_")), Reason: s.GetNotReadyReason(),
			Here: r.GetHeard() == nil, Heard: statuspage.Seconds(r.GetHeard().AsDuration().Seconds()), Version: s.GetVersion(),
			Streams: s.GetStreams(), Mailboxes: s.GetMailboxes(), Accepted: s.GetLedger().GetAccepted(), Pending: s.GetLedger().GetPending(),
		}
		if s.GetStartedAt() != nil {
			one.Started = s.GetStartedAt().AsTime()
		}
		shown = append(shown, one)
	}
	return shown
}

func (d *daemon) pageOrganization(ctx context.Context, o *registry.Organization) statuspage.Organization {
	shown := statuspage.Organization{
		Name: o.Name, Enabled: o.Enabled, Mailboxes: o.Mailboxes, Subscriptions: o.Subscriptions,
		Streams: d.server.Streams(o.ID), Credentials: []statuspage.Credential{},
	}
	credentials, err := d.registry.ListCredentials(ctx, o.ID)
	if err != nil {
		return shown
	}
	for i := range credentials {
		c := &credentials[i]
		shown.Credentials = append(shown.Credentials, statuspage.Credential{
			Thumbprint: fmt.Sprintf("%X", c.X5T), End: c.EndAt.UTC(), LastUsed: c.LastUsedAt,
		})
	}
	return shown
}
