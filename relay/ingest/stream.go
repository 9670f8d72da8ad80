package ingest

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"badgerelay/auth"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// flushTime is how long a stream that ends may take to send what has settled
// to an agent that reads slowly.
const flushTime = time.Second

// agentStream is one RelayService.Stream. It has two goroutines: the handler's
// waits for the end, and the reader's for messages, because only a handler that
// returns ends gRPC's waiting; apart says why their stacks are small. sender has a
// third while there is something to send.
type agentStream struct {
	server  *Server
	grpc    grpc.ServerStream // RecvMsg: the reader; SendMsg: sender
	session *session
	relay   *relay.Stream // Submit: the reader; TakeSettled: sender
	out     *sender
	done    <-chan struct{}    // closed when the handler has to return
	cancel  context.CancelFunc // closes done
	stop    func()             // ends what else can end the stream
	traced  tracedBatches

	// Guarded by agents.mu.
	key      agentKey // whose stream it is
	id       streamID
	role     role
	told     bool          // other relays were told that it is active
	replaced bool          // a newer stream has ended it
	closed   bool          // the handler has ended
	demoted  chan struct{} // closed when it stands by for the first time
	openedAt time.Time

	organization string // its name; never changes
	name         string // what the agent calls itself; set before agents knows the stream

	heard atomic.Int64 // when the last message came, in Unix milliseconds

	mu      sync.Mutex // guards what follows
	ended   bool
	cause   error // of the end; nil: all that the agent sent has settled
	hello   bool  // has been answered
	standby bool  // the agent is to be told, or has been
}

// role is what a stream is among those of its agent.
type role uint8

const (
	roleNone role = iota // it has not been decided
	roleActive
	roleStandby
)

// Stream implements badgerelayv1.RelayServiceServer.
func (s *relayService) Stream(g grpc.BidiStreamingServer[pb.StreamRequest, pb.StreamResponse]) error {
	p, err := caller(g.Context())
	if err != nil {
		return err
	}
	st := &agentStream{server: s.Server, grpc: g, demoted: make(chan struct{}), organization: p.Organization}
	if err := apart(func() error { return st.open(g.Context(), p) }); err != nil {
		return err
	}
	<-st.done
	return st.close()
}

// open begins the stream, whose context is made of ctx, gRPC's.
func (st *agentStream) open(ctx context.Context, p *auth.Principal) (err error) {
	s := st.server
	if st.session, err = s.openSession(ctx, sessionOpening, p); err != nil {
		s.agents.tried(relay.OrganizationID(p.OrganizationID), "", err)
		return err
	}
	s.metrics.organizations.open(p)
	ctx, st.cancel = context.WithCancel(ctx)
	st.done = ctx.Done()
	st.relay = s.relay.OpenStream(st.session.org, "")
	st.out = newSender(st)
	st.relay.OnSettled(st.out.settled)
	st.relay.OnDropped(func() { st.end(relayStopped()) })
	r := &reader{
		agentStream: st, principal: p, stopRenewal: func() {},
		helloDue: time.AfterFunc(s.helloTimeout, func() { st.end(helloMissing("no hello came in time")) }),
	}
	r.expiry = time.AfterFunc(time.Until(p.GoodUntil), r.expire)
	lost := context.AfterFunc(st.session.right, func() { st.end(context.Cause(st.session.right)) })
	drains := context.AfterFunc(s.drainContext, st.drain)
	leaves := context.AfterFunc(s.life, func() { st.end(service.Draining()) })
	st.stop = func() {
		leaves()
		drains()
		lost()
		r.expiry.Stop()
		r.helloDue.Stop()
	}
	s.background.Go(func() { // ends with the stream
		if err := r.read(ctx); err != nil {
			st.end(err)
		} else {
			st.out.endWhenSettled(nil)
		}
	})
	return nil
}

// close returns what the stream ends with. The reader may live a little longer: gRPC
// frees it when the handler has returned. Drain waits for it.
func (st *agentStream) close() error {
	st.out.close()
	cause := st.whyEnded()
	st.stop()
	st.traced.close()
	st.relay.Close()
	st.server.agents.close(st)
	st.cancel()
	st.server.sessions.remove(st.session)
	return cause
}

// whyEnded returns the cause of the end.
func (st *agentStream) whyEnded() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.ended {
		return st.grpc.Context().Err() // the agent is gone
	}
	return st.cause
}

// end has the stream end with cause, the first of several, when what has settled
// until now was sent, or flushTime is over. It does not wait.
func (st *agentStream) end(cause error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended {
		return
	}
	st.ended, st.cause = true, cause
	if st.session.replaced() {
		st.cancel() // nobody is there to be told, and what is pending must end at once
		return
	}
	st.out.finish()
}

// replaceLocked ends a stream that the agent has left. The caller holds the mutex
// of agents.
func (st *agentStream) replaceLocked() {
	st.replaced = true
	st.session.end(streamReplaced())
}

// takeRole has the stream take events, or not any more, and tells the agent, who
// takes the stream for active until told otherwise. When it returns, no event is
// under way that a stream that stands by has taken. The caller holds the mutex of
// agents.
func (st *agentStream) takeRole(to role) {
	was := st.role
	if st.role = to; to == roleActive {
		if was == roleStandby {
			st.relay.Activate()
			st.tellRole(false)
		}
		return
	}
	st.relay.Standby()
	st.tellRole(true)
	select {
	case <-st.demoted:
	default:
		close(st.demoted)
	}
}

// tellRole tells the agent of a change, once it has been welcomed.
func (st *agentStream) tellRole(standby bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.standby = standby; st.hello {
		st.out.put(roleMessage(standby))
	}
}

func roleMessage(standby bool) *pb.StreamResponse {
	if standby {
		return &pb.StreamResponse{Message: &pb.StreamResponse_Standby{Standby: &pb.Standby{}}}
	}
	return &pb.StreamResponse{Message: &pb.StreamResponse_Takeover{Takeover: &pb.Takeover{}}}
}

// drain tells the agent that the relay leaves.
func (st *agentStream) drain() {
	if !st.helloReceived() {
		st.end(service.Draining())
		return
	}
	st.out.put(drainMessage(st.server.drainGrace))
	st.out.endWhenSettled(service.Draining())
}

func (st *agentStream) helloReceived() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.hello
}

// reader is what is known about the stream so far.
type reader struct {
	*agentStream
	principal *auth.Principal // who opened it
	probe     bool            // it is no agent's, and ends with its welcome
	next      uint64          // the sequence number the next batch has to start with; 0: any
	helloDue  *time.Timer     // ends the stream, if no hello comes
	expiry    *time.Timer     // ends the stream with its token

	stopRenewal func()      // has no token accepted any more that came until now
	renewing    atomic.Bool // a fresh token waits for the registry
}

// read takes messages until the agent closes its side, or a probe has its answer,
// which is nil, or until one is refused. It reads the next only when the relay has
// taken the last, which is how a fast agent is slowed.
func (r *reader) read(ctx context.Context) error {
	m := streamRequest{limit: r.server.batchEvents}
	for {
		if err := r.grpc.RecvMsg(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		r.heard.Store(time.Now().UnixMilli())
		if err := r.take(ctx, &m); err != nil || r.probe {
			return err
		}
	}
}

// take acts on one message.
func (r *reader) take(ctx context.Context, m *streamRequest) error {
	switch {
	case m.err != nil:
		return service.Malformed()
	case m.hello != nil && r.hello:
		return service.Refuse(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_HELLO_REPEATED, "a second hello came")
	case m.hello != nil:
		return apart(func() error {
			err := r.handshake(ctx, m.hello)
			if !m.hello.GetProbe() {
				r.server.agents.tried(r.session.org, m.hello.GetAgentId(), err)
			}
			return err
		})
	case !r.hello:
		return helloMissing("the first message is not a hello")
	case m.token != nil:
		r.renew(ctx, m.token.GetToken())
		return nil
	case m.delay != nil:
		return r.delaySettlements(m.delay.GetMaxDelay())
	case m.batch:
		return r.submit(ctx, m)
	}
	return service.Invalid("message", "is absent")
}

func (r *reader) handshake(ctx context.Context, hello *pb.Hello) error {
	if hello.GetAgent() == nil {
		return service.Invalid("agent", "is absent")
	}
	if err := checkIdentity(hello); err != nil { // first, since a refusal that follows keeps the id
		return err
	}
	if err := r.server.products.check(hello.GetAgent()); err != nil {
		return err
	}
	r.relay.SetAgent(hello.GetAgentId())
	if r.probe = hello.GetProbe(); !r.probe {
		if err := r.server.sessions.identify(r.session, agentProcess{hello.GetAgentId(), hello.GetInstance()}); err != nil {
			return err
		}
		if err := r.identify(ctx, hello); err != nil {
			return err
		}
	}
	welcome := &pb.Welcome{
		RelayVersion:   r.server.version,
		Instance:       r.server.instance,
		MaxBatchEvents: uint32(r.server.batchEvents),
		TokenExpiresAt: timestamppb.New(r.principal.ExpiresAt),
		MaxInFlight:    durationpb.New(MaxInFlight),

		MaxSettlementDelay: durationpb.New(maxSettlementDelay),
	}
	if r.server.window > 0 {
		welcome.CoalescingWindow = durationpb.New(r.server.window)
	}
	r.helloDue.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hello = true
	r.out.put(&pb.StreamResponse{Message: &pb.StreamResponse_Welcome{Welcome: welcome}})
	if r.standby {
		r.out.put(roleMessage(true))
	}
	return nil
}

// renewInterval is the longest between two questions to a registry that is away about a
// fresh token. Ours:
// an agent hands it in some minutes before it has to.
const renewInterval = 5 * time.Second

// expire ends the stream with its token. Where a fresh one waits it is the registry's fault.
func (r *reader) expire() {
	if r.renewing.Load() {
		r.end(registry.ErrUnavailable)
		return
	}
	r.end(tokenExpired())
}

// renew takes a fresh token of the same organization, the newest of several, while
// reader takes what comes next. As long as the registry is away the stream goes on
// with the token that it has.
func (r *reader) renew(ctx context.Context, token string) {
	r.stopRenewal()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	r.stopRenewal = func() { cancel(); <-done }
	r.renewing.Store(true)
	r.server.background.Go(func() { // ends with the stream
		defer close(done)
		defer cancel()
		if err := r.awaitToken(ctx, token); err != nil && ctx.Err() == nil {
			r.end(err)
		}
		if ctx.Err() == nil {
			r.renewing.Store(false)
		}
	})
}

// awaitToken accepts a token when the registry has answered.
func (r *reader) awaitToken(ctx context.Context, token string) error {
	for {
		err := r.acceptToken(ctx, token)
		if !errors.Is(err, registry.ErrUnavailable) {
			return err
		}
		select {
		case <-time.After(renewInterval - rand.N(renewInterval/4)): // streams whose tokens ended together don't ask together
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// acceptToken has the stream go on with a token.
func (r *reader) acceptToken(ctx context.Context, token string) error {
	p, err := r.server.validator.Validate(ctx, token)
	if err != nil {
		return err
	}
	if p.OrganizationID != r.principal.OrganizationID {
		return service.Refuse(codes.Unauthenticated, pb.ErrorReason_ERROR_REASON_TOKEN_REALM, "the fresh token is another organization's")
	}
	r.server.sessions.renew(r.session, p)
	if err := r.server.stillValid(ctx, p); err != nil {
		return err
	}
	r.server.sessions.renewed(r.session)
	r.expiry.Reset(time.Until(p.GoodUntil))
	select {
	case <-r.done:
		r.expiry.Stop() // the stream has ended, and has perhaps stopped it before
	default:
	}
	r.out.put(&pb.StreamResponse{Message: &pb.StreamResponse_TokenAccepted{
		TokenAccepted: &pb.TokenAccepted{TokenExpiresAt: timestamppb.New(p.ExpiresAt)},
	}})
	return nil
}

// maxSettlementDelay is the longest that an agent may have settlements held back. Ours:
// what it has sent meanwhile is sent again when its stream breaks.
const maxSettlementDelay = 30 * time.Second

func (r *reader) delaySettlements(d *durationpb.Duration) error {
	if d != nil && !d.IsValid() || d.AsDuration() < 0 || d.AsDuration() > maxSettlementDelay {
		return service.Invalid("settlement_delay.max_delay", "is not from 0 to 30 s")
	}
	r.out.delayBy(d.AsDuration())
	return nil
}

// submit hands a batch to the relay. After the drain notice batches are
// dropped: they are unsettled, and so the agent's to send elsewhere.
func (r *reader) submit(ctx context.Context, m *streamRequest) error {
	if err := r.checkBatch(m); err != nil {
		return err
	}
	r.next = m.first + uint64(len(m.events))
	r.server.metrics.batch(r.principal, len(m.events))
	if r.server.isDraining() {
		return nil
	}
	if r.traced.add(r.server.tracer.streamed(ctx, r.session.org, m)) {
		r.out.hasten()
	}
	err := r.relay.Submit(ctx, m.first, m.events)
	switch {
	case errors.Is(err, relay.ErrDraining):
		return nil
	case errors.Is(err, relay.ErrClosed):
		return relayStopped() // or it has ended already, and nobody is told
	}
	return err
}

func (r *reader) checkBatch(m *streamRequest) error {
	n := uint64(len(m.events))
	switch {
	case m.tooLarge:
		return batchTooLarge("batch.events", r.server.batchEvents)
	case n == 0:
		return service.Invalid("batch.events", "is empty")
	case m.first == 0:
		return service.Invalid("batch.first_sequence", "is 0; sequence numbers start from 1")
	case m.first > math.MaxUint64-n:
		return service.Invalid("batch.first_sequence", "leaves no numbers for the batch's events")
	case r.next != 0 && m.first != r.next:
		return sequenceGap(m.first, r.next)
	}
	return nil
}

func relayStopped() error {
	return service.Refuse(codes.Unavailable, pb.ErrorReason_ERROR_REASON_RELAY_STOPPED, "the relay's process was stopped for a while; send again")
}

func sequenceGap(first, next uint64) error {
	r := service.Refuse(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_SEQUENCE_GAP, "the batch starts at %d, and %d was to come", first, next)
	r.Field, r.Rule = "batch.first_sequence", "does not follow the last event's number"
	return r
}

// batchTooLarge names the field that holds the events.
func batchTooLarge(field string, limit int) error {
	r := service.Refuse(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_BATCH_TOO_LARGE, "the batch holds more than %d events", limit)
	r.Field, r.Rule = field, "is longer than the relay accepts"
	return r
}

func helloMissing(why string) error {
	return service.Refuse(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_HELLO_MISSING, "%s", why)
}

func drainMessage(grace time.Duration) *pb.StreamResponse {
	return &pb.StreamResponse{Message: &pb.StreamResponse_Drain{Drain: &pb.Drain{Grace: durationpb.New(grace)}}}
}
