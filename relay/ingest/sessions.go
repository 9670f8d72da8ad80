package ingest

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"badgerelay/auth"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// sessionKind is what kind of long call a session is. Each is limited apart.
type sessionKind int

const (
	sessionOpening sessionKind = iota // a stream that has not said whose it is, and a probe
	sessionStream
	sessionWatch
	sessionImport
	sessionKinds
)

// spareOpenings is how many streams more may be opening than open: a probe, and one
// that is to take the place of another. Ours: they take a round trip.
const spareOpenings = 10

// session is a call that lives long enough for its caller's right to end
// meanwhile.
type session struct {
	org   relay.OrganizationID
	limit uint32 // the organization's own; 0: it has none

	right context.Context         // ends, with the cause, when the session has to
	end   context.CancelCauseFunc // ends right
	gone  chan struct{}           // closed when the session has ended

	// Guarded by sessions.mu.
	kind       sessionKind
	process    agentProcess // of sessionStream
	credential string       // id of the token's credential
	fresh      string       // id of that of a token which is looked at; empty: none is
}

// agentProcess is a process of an organization's agent.
type agentProcess struct{ agent, instance string }

// sessions knows every open session, so that those end whose right does.
type sessions struct {
	metrics *metrics

	mu               sync.Mutex // guards what follows, and the guarded fields of sessions
	maxTotal, maxOrg int        // limits by kind; negative: none
	orgs             map[relay.OrganizationID]*organizationSessions
	open             [sessionKinds]int
}

// organizationSessions are those of one organization.
type organizationSessions struct {
	all     map[*session]struct{}
	open    [sessionKinds]int
	streams map[agentProcess]int // of sessionStream, by process
}

func newSessions(c *Config, m *metrics) *sessions {
	return &sessions{
		maxTotal: c.maxStreams(), maxOrg: c.organizationStreams(), metrics: m,
		orgs: map[relay.OrganizationID]*organizationSessions{},
	}
}

// set changes the limits. Sessions beyond a lower one stay open.
func (t *sessions) set(c *Config) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.maxTotal, t.maxOrg = c.maxStreams(), c.organizationStreams()
}

// add opens a session within the limits. own is the organization's limit; 0:
// it has none.
func (t *sessions) add(kind sessionKind, p *auth.Principal, own uint32) (*session, error) {
	s := &session{org: relay.OrganizationID(p.OrganizationID), limit: own, gone: make(chan struct{}), kind: kind, credential: p.CredentialID}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.checkLocked(s, kind, agentProcess{}); err != nil {
		return nil, err
	}
	s.right, s.end = context.WithCancelCause(context.Background())
	if t.orgs[s.org] == nil {
		t.orgs[s.org] = &organizationSessions{all: map[*session]struct{}{}, streams: map[agentProcess]int{}}
	}
	t.orgs[s.org].all[s] = struct{}{}
	t.countLocked(s, 1)
	return s, nil
}

// identify makes a stream that is opening a process's, within the limits. It takes the
// place of the process's streams of before, which end for it. The stream's reader calls it,
// and the stream may have ended meanwhile.
func (t *sessions) identify(s *session, process agentProcess) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-s.gone:
		return status.Error(codes.Canceled, "the stream has ended") // nobody hears it
	default:
	}
	if err := t.checkLocked(s, sessionStream, process); err != nil {
		return err
	}
	t.countLocked(s, -1)
	s.kind, s.process = sessionStream, process
	t.countLocked(s, 1)
	return nil
}

// checkLocked refuses to make s one of a kind, of a process where it is a stream, if
// there is no room beside the others.
func (t *sessions) checkLocked(s *session, kind sessionKind, process agentProcess) error {
	own, same := 0, 0
	if o := t.orgs[s.org]; o != nil {
		own = o.open[kind]
		if kind == sessionStream {
			same = o.streams[process]
		}
	}
	limit, spare := t.maxOrg, 0
	if s.limit > 0 {
		limit = int(s.limit)
	}
	if kind == sessionOpening {
		spare = spareOpenings
	}
	if t.maxTotal >= 0 && t.open[kind]-same >= t.maxTotal+spare {
		return service.LimitReached("relay_streams", uint64(t.maxTotal))
	}
	if limit >= 0 && own-same >= limit+spare {
		return service.LimitReached("max_streams", uint64(limit))
	}
	return nil
}

// countLocked notes that there are n more sessions like s.
func (t *sessions) countLocked(s *session, n int) {
	t.open[s.kind] += n
	t.metrics.sessions[s.kind].Add(float64(n))
	o := t.orgs[s.org]
	o.open[s.kind] += n
	if s.kind != sessionStream {
		return
	}
	if o.streams[s.process] += n; o.streams[s.process] == 0 {
		delete(o.streams, s.process)
	}
}

func (t *sessions) remove(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.countLocked(s, -1)
	delete(t.orgs[s.org].all, s)
	if len(t.orgs[s.org].all) == 0 {
		delete(t.orgs, s.org)
	}
	s.end(nil) // frees what waits for it
	close(s.gone)
}

// renew notes that the session is to rest on another credential, and renewed that it
// does. Between the two it ends with either.
func (t *sessions) renew(s *session, p *auth.Principal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.fresh = p.CredentialID
}

func (t *sessions) renewed(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.credential, s.fresh = s.fresh, ""
}

// count returns how many sessions of the kind the organization has open.
func (t *sessions) count(org relay.OrganizationID, kind sessionKind) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o := t.orgs[org]; o != nil {
		return o.open[kind]
	}
	return 0
}

// total returns how many sessions of the kind are open.
func (t *sessions) total(kind sessionKind) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[kind]
}

// endWhere ends the organization's sessions of which doomed is true.
func (t *sessions) endWhere(org relay.OrganizationID, cause *service.Refusal, doomed func(*session) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.orgs[org]
	if o == nil {
		return
	}
	for s := range o.all {
		if doomed(s) {
			s.end(cause)
		}
	}
}

// changed ends the sessions whose right a change of the registry took.
func (t *sessions) changed(c *registry.Change) {
	switch {
	case c.Kind == registry.ChangeCredentialRemoved:
		t.endWhere(c.Organization, credentialRevoked(), func(s *session) bool { return c.CredentialID == s.credential || c.CredentialID == s.fresh })
	case c.Kind == registry.ChangeOrganizationRemoved,
		c.Kind == registry.ChangeOrganizationChanged && !c.OrganizationEnabled:
		t.endWhere(c.Organization, organizationDisabled(), func(*session) bool { return true })
	}
}

func streamReplaced() *service.Refusal {
	return service.Refuse(codes.Aborted, pb.ErrorReason_ERROR_REASON_STREAM_REPLACED, "the agent has opened a newer stream")
}

func credentialRevoked() *service.Refusal {
	return service.Refuse(codes.Unauthenticated, pb.ErrorReason_ERROR_REASON_CREDENTIAL_REVOKED, "the credential behind the token was removed")
}

func organizationDisabled() *service.Refusal {
	return service.Refuse(codes.PermissionDenied, pb.ErrorReason_ERROR_REASON_ORGANIZATION_DISABLED, "the organization is disabled")
}

func tokenExpired() error {
	return service.Refuse(codes.Unauthenticated, pb.ErrorReason_ERROR_REASON_TOKEN_EXPIRED, "the token has expired")
}

// openSession opens a session for the principal, if its right still stands.
// The right is looked at after the session is known, so that it is either
// found gone here or its end is told by the change feed; none slips through.
func (s *Server) openSession(ctx context.Context, kind sessionKind, p *auth.Principal) (*session, error) {
	if s.isDraining() {
		return nil, service.Draining()
	}
	org, err := s.registry.OrganizationByID(ctx, relay.OrganizationID(p.OrganizationID))
	if err != nil {
		return nil, err
	}
	session, err := s.sessions.add(kind, p, org.Limits.MaxStreams)
	if err != nil {
		return nil, err
	}
	if err := s.stillValid(ctx, p); err != nil {
		s.sessions.remove(session)
		return nil, err
	}
	return session, nil
}

// stillValid asks the registry whether the principal's credential is there and
// its organization enabled.
func (s *Server) stillValid(ctx context.Context, p *auth.Principal) error {
	credentials, err := s.registry.CredentialsByX5T(ctx, p.X5T)
	if err != nil {
		return err
	}
	for i := range credentials {
		c := &credentials[i]
		if c.ID != p.CredentialID || c.OrganizationID != p.OrganizationID {
			continue
		}
		if !c.Enabled {
			return organizationDisabled()
		}
		return nil
	}
	return credentialRevoked()
}

// sessionEnds are what can end a session from outside.
type sessionEnds struct {
	session   *session
	goodUntil time.Time       // the token is
	until     <-chan struct{} // closed when the relay leaves
}

// runSession runs the work of a session and returns its end, or the first reason
// to end it sooner. Then the work's ctx ends; what it does with gRPC's stream
// ends when the handler has returned, which Drain waits for.
func (s *Server) runSession(ctx context.Context, a sessionEnds, work func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	s.background.Go(func() { done <- work(ctx) })
	expiry := time.NewTimer(time.Until(a.goodUntil))
	defer expiry.Stop()
	select {
	case err := <-done:
		return err
	case <-expiry.C:
		return tokenExpired()
	case <-a.session.right.Done():
		return context.Cause(a.session.right)
	case <-a.until:
		return service.Draining()
	case <-ctx.Done():
		return ctx.Err()
	}
}
