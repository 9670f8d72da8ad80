package ingest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// Bounds of a report. Ours: more than a person reads.
const (
	maxReported = registry.MaxPageSize // live subscriptions
	maxRemoved  = 100
)

// Reports says what a Server needs to make reports of mailboxes; the zero value
// makes them without.
type Reports struct {
	// Status tells what only the process knows: its start, why it takes no work, and
	// the apps. nil: nothing of it is told.
	Status func(context.Context) *pb.GetStatusResponse
	// Place is this relay's name among those that share the registry.
	Place string
	// Others returns those relays, this one included. nil: nobody shares it.
	Others func(context.Context) ([]registry.Presence, error)
	// Inquiries asks them. nil: nobody is asked.
	Inquiries Inquiries
}

// reporter makes reports of mailboxes, for operators and for agents.
type reporter struct {
	server *Server
	config Reports

	mu   sync.Mutex // guards busy
	busy map[relay.OrganizationID]struct{}
}

func newReporter(s *Server, c Reports) *reporter {
	return &reporter{server: s, config: c, busy: map[relay.OrganizationID]struct{}{}}
}

// GetMailbox implements badgerelayv1.SubscriptionServiceServer. An organization has
// one report made at a time: each asks the registry and every relay.
func (s *subscriptionService) GetMailbox(ctx context.Context, m *pb.GetMailboxRequest) (*pb.GetMailboxResponse, error) {
	p, err := s.admit(ctx, 0)
	if err != nil {
		return nil, err
	}
	if err := service.CheckMailbox("mailbox", m.GetMailbox()); err != nil {
		return nil, err
	}
	org := relay.OrganizationID(p.OrganizationID)
	done, err := s.reporter.begin(org)
	if err != nil {
		return nil, err
	}
	defer done()
	report, err := s.reporter.report(ctx, registry.Organization{ID: org, Name: p.Organization, Enabled: true}, m.GetMailbox(), true)
	if err != nil {
		return nil, err
	}
	keepOwn(report)
	return &pb.GetMailboxResponse{Report: report}, nil
}

// begin notes that a report for an organization is being made, if none is.
func (p *reporter) begin(org relay.OrganizationID) (done func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, busy := p.busy[org]; busy {
		r := service.Refuse(codes.ResourceExhausted, pb.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED, "another report is being made for the organization")
		r.RetryAfter = time.Second
		return nil, r
	}
	p.busy[org] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.busy, org)
	}, nil
}

// report gathers everything that is known of a mailbox. What can't be had is named in
// the report. asOrganization leaves the parts of others out, and has keepOwn still to
// be called.
func (p *reporter) report(ctx context.Context, org registry.Organization, mailbox string, asOrganization bool) (*pb.MailboxReport, error) {
	r := &pb.MailboxReport{
		Organization: org.Name, Mailbox: mailbox, ReportedAt: service.Time(time.Now()),
		OrganizationDisabled: !org.Enabled, Credentials: &pb.CredentialSummary{},
	}
	asked, cancel := context.WithTimeout(ctx, service.RegistryTimeout)
	defer cancel()
	if err := p.readRegistry(asked, org, r, asOrganization); err != nil {
		if !service.Unanswered(asked, err) {
			return nil, err
		}
		r.RegistryError = service.RegistryError(asked, err)
	}
	r.Relays = []*pb.RelayReport{p.own(ctx, org.ID, mailbox)}
	others, err := p.others(ctx, org.ID, mailbox)
	if err != nil && r.GetRegistryError() == "" {
		r.RegistryError = service.RegistryError(ctx, err)
	}
	r.Relays = append(r.Relays, others...)
	return r, ctx.Err()
}

// readRegistry adds what the registry knows.
func (p *reporter) readRegistry(ctx context.Context, org registry.Organization, r *pb.MailboxReport, asOrganization bool) error {
	reg := p.server.registry
	credentials, err := reg.ListCredentials(ctx, org.ID)
	if err != nil {
		return err
	}
	r.Credentials = summarize(credentials, time.Now())
	live, _, err := reg.ListSubscriptions(ctx, registry.SubscriptionFilter{Organization: org.ID, Mailbox: r.GetMailbox()}, registry.Page{Size: maxReported})
	if err != nil {
		return err
	}
	for i := range live {
		r.Subscriptions = append(r.Subscriptions, p.subscription(&live[i]))
	}
	removed, err := p.removed(ctx, org.ID, r.GetMailbox())
	if err != nil {
		return err
	}
	for i := range removed {
		r.Removed = append(r.Removed, p.subscription(&removed[i]))
	}
	if len(live) > 0 {
		return p.readShared(ctx, relay.MailboxKey{Organization: org.ID, Mailbox: r.GetMailbox()}, r, asOrganization)
	}
	r.SimilarMailboxes, err = p.similar(ctx, org.ID, r.GetMailbox())
	return err
}

// removed returns the mailbox's removed subscriptions, newest first.
func (p *reporter) removed(ctx context.Context, org relay.OrganizationID, mailbox string) ([]registry.Subscription, error) {
	filter := registry.SubscriptionFilter{Organization: org, Mailbox: mailbox, Removed: true}
	removed, _, err := p.server.registry.ListSubscriptions(ctx, filter, registry.Page{Size: registry.MaxPageSize})
	slices.SortStableFunc(removed, func(a, b registry.Subscription) int { return b.RemovedAt.Compare(a.RemovedAt) })
	return removed[:min(len(removed), maxRemoved)], err
}

func summarize(credentials []registry.Credential, now time.Time) *pb.CredentialSummary {
	s := &pb.CredentialSummary{Registered: uint32(len(credentials))}
	var ended, next time.Time
	for i := range credentials {
		c := &credentials[i]
		switch {
		case now.After(c.EndAt):
			if c.EndAt.After(ended) {
				ended = c.EndAt
			}
		case now.Before(c.StartAt):
			if next.IsZero() || c.StartAt.Before(next) {
				next = c.StartAt
			}
		default:
			s.Valid++
		}
	}
	s.LastEndedAt, s.NextStartAt = service.Time(ended), service.Time(next)
	return s
}

// subscription tells of a quarantine only while it is in force here: what APNs refused of
// the app as it was configured before is nothing that a push has to wait for.
func (p *reporter) subscription(s *registry.Subscription) *pb.SubscriptionReport {
	m := &pb.SubscriptionReport{
		App: s.App, DeviceToken: s.Device.Hex(), RegisteredAt: service.Time(s.RegisteredAt), ExpiresAt: service.Time(s.ExpiresAt),
		OtherMailboxes: s.OtherMailboxes, RemovedAt: service.Time(s.RemovedAt), RemovalReason: string(s.RemovalReason),
	}
	q := s.Quarantine
	generation := p.server.relay.Generation(s.App)
	if q != nil && generation == 0 {
		generation = q.Generation // not known
	}
	if q.InForce(generation, s.RegisteredAt) {
		m.HeldReason, m.HeldSince, m.NextProbeAt = string(q.Reason), service.Time(q.Since), service.Time(q.NextProbe())
	}
	return m
}

// own returns what this relay has of a mailbox.
func (p *reporter) own(ctx context.Context, org relay.OrganizationID, mailbox string) *pb.RelayReport {
	s := p.server
	r := &pb.RelayReport{Name: p.config.Place, Instance: s.instance, Draining: s.isDraining()}
	ids := s.agents.of(org, r)
	state := s.relay.Inspect(relay.MailboxKey{Organization: org, Mailbox: mailbox}, ids)
	if c := state.Count; c != nil {
		r.Count = &pb.CountReport{
			UnreadCount: c.Unread, ReceivedAt: service.Time(c.ReceivedAt), AgentId: c.Agent, Pending: c.Pending,
			Wait: wireWait(c.Wait), WaitUntil: service.Time(c.Until),
		}
	}
	for i := range state.Devices {
		r.Devices = append(r.Devices, deviceReport(&state.Devices[i], org))
	}
	if p.config.Status == nil {
		return r
	}
	process := p.config.Status(ctx)
	r.StartedAt, r.NotReadyReason = process.GetStartedAt(), process.GetNotReadyReason()
	for _, a := range process.GetApps() {
		r.Apps = append(r.Apps, &pb.AppReport{
			Name: a.GetName(), State: a.GetState(), Reason: a.GetReason(), RefusedSince: a.GetRefusedSince(),
			LastError: a.GetLastError(), BreakerOpenSince: a.GetBreakerOpenSince(),
		})
	}
	return r
}

// wireWait maps the relay's waits.
func wireWait(w relay.Wait) pb.Wait {
	switch w {
	case relay.WaitSubscriptions:
		return pb.Wait_WAIT_SUBSCRIPTIONS
	case relay.WaitWindow:
		return pb.Wait_WAIT_WINDOW
	case relay.WaitStream:
		return pb.Wait_WAIT_STREAM
	case relay.WaitAnswer:
		return pb.Wait_WAIT_ANSWER
	case relay.WaitPause:
		return pb.Wait_WAIT_PAUSE
	case relay.WaitRetry:
		return pb.Wait_WAIT_RETRY
	case relay.WaitBreaker:
		return pb.Wait_WAIT_BREAKER
	case relay.WaitSum:
		return pb.Wait_WAIT_SUM
	case relay.WaitQuarantine:
		return pb.Wait_WAIT_QUARANTINE
	case relay.WaitNone:
	}
	return pb.Wait_WAIT_UNSPECIFIED
}

// deviceReport leaves out the badge that another organization's count put there: the
// device has come from its mailbox.
func deviceReport(d *relay.DeviceState, org relay.OrganizationID) *pb.DeviceReport {
	m := &pb.DeviceReport{
		App: d.App, DeviceToken: d.Device.Hex(), Wait: wireWait(d.Wait), WaitUntil: service.Time(d.Until),
		Reason: string(d.Reason), RefusedAt: service.Time(d.RefusedAt), Shared: d.Shared, Pusher: d.Pusher,
	}
	if !d.AcceptedAt.IsZero() && (d.Shared || d.By == org) {
		m.Badge, m.AcceptedAt = &d.Badge, service.Time(d.AcceptedAt)
	}
	if !d.CountAcceptedAt.IsZero() {
		m.AcceptedCount, m.CountAcceptedAt = &d.Count, service.Time(d.CountAcceptedAt)
	}
	if d.Wait != relay.WaitNone {
		m.Wanted = &d.Wanted
	}
	return m
}

// Report makes a report of a mailbox for operators. get finds its organization by name:
// while the registry does not answer, one that has an agent here is known all the same.
func (s *Server) Report(ctx context.Context, get func(context.Context, string) (registry.Organization, error), organization, mailbox string) (*pb.MailboxReport, error) {
	o, err := s.reporter.organizationNamed(ctx, get, organization)
	if err != nil {
		return nil, err
	}
	return s.reporter.report(ctx, o, mailbox, false)
}

// organizationNamed finds an organization. While the registry does not answer, one that
// has an agent here is known all the same.
func (p *reporter) organizationNamed(ctx context.Context, get func(context.Context, string) (registry.Organization, error), name string) (registry.Organization, error) {
	asked, cancel := context.WithTimeout(ctx, service.RegistryTimeout)
	defer cancel()
	o, err := get(asked, name)
	if err == nil || !service.Unanswered(asked, err) {
		return o, err
	}
	if id, known := p.server.agents.organization(strings.ToLower(name)); known {
		return registry.Organization{ID: id, Name: strings.ToLower(name), Enabled: true}, ctx.Err()
	}
	if errors.Is(err, registry.ErrUnavailable) {
		return o, err
	}
	return o, registry.ErrUnavailable
}
