package ingest

import (
	"context"
	"errors"
	"io"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"badgerelay/auth"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
)

// flushTime is how long a stream that ends may take to send what has settled
// to an agent that reads slowly.
const flushTime = time.Second

// agentStream is one RelayService.Stream. Its fields never change; each says
// who uses it.
type agentStream struct {
	server  *Server
	grpc    grpc.ServerStream // RecvMsg: the reader; SendMsg: the sender
	session *session
	relay   *relay.Stream // Submit: the reader; Next: the sender
	out     *outbox       // the reader and the handler put, the sender takes

	traced  tracedBatches
	greeted chan struct{}       // the reader closes it after the hello
	renewed chan auth.Principal // the reader tells the handler of a fresh token
}

// Stream implements badgerelayv1.RelayServiceServer.
func (s *relayService) Stream(g grpc.BidiStreamingServer[pb.StreamRequest, pb.StreamResponse]) error {
	p, err := caller(g.Context())
	if err != nil {
		return err
	}
	session, err := s.openSession(g.Context(), sessionStream, p)
	if err != nil {
		return err
	}
	defer s.sessions.remove(session)
	s.metrics.tally.open(p)
	st := &agentStream{
		server: s.Server, grpc: g, session: session,
		relay: s.relay.OpenStream(session.org), out: newOutbox(),
		greeted: make(chan struct{}), renewed: make(chan auth.Principal, 1),
	}
	defer st.relay.Close()
	defer st.traced.close()
	return st.run(p)
}

// run is the handler: it starts the reader and the sender, and returns what
// the stream ends with. The reader may live a little longer: gRPC frees it
// when the handler has returned. Drain waits for it.
func (st *agentStream) run(p *auth.Principal) error {
	ctx, cancel := context.WithCancel(st.grpc.Context())
	defer cancel()
	read, sent := make(chan error, 1), make(chan error, 1)
	st.server.background.Go(func() { read <- st.read(ctx, p) })
	st.server.background.Go(func() { sent <- st.send(ctx) })

	err, senderGone := st.supervise(p, read, sent)
	cancel()
	if st.session.replaced() {
		return err // nobody is there to be told, and what is pending must end at once
	}
	if !senderGone {
		flush := time.NewTimer(flushTime)
		defer flush.Stop()
		select {
		case <-sent: //nolint:errcheck // supervise has said why the stream ends
		case <-flush.C: // the agent does not read; the end of the handler frees the sender
		}
	}
	return err
}

// supervise waits for the first reason to end the stream.
func (st *agentStream) supervise(p *auth.Principal, read, sent <-chan error) (err error, senderGone bool) {
	hello := time.NewTimer(st.server.helloTimeout)
	defer hello.Stop()
	expiry := time.NewTimer(time.Until(p.ExpiresAt))
	defer expiry.Stop()
	greeted, drain := st.greeted, st.server.draining
	for {
		select {
		case <-hello.C:
			return helloMissing("no hello came in time"), false
		case <-greeted:
			hello.Stop()
			greeted = nil
		case fresh := <-st.renewed:
			expiry.Reset(time.Until(fresh.ExpiresAt))
		case <-expiry.C:
			return tokenExpired(), false
		case <-st.session.ended:
			return st.session.cause, false
		case <-drain:
			if !st.hasGreeted() {
				return draining(), false
			}
			drain = nil
			st.out.put(drainMessage(st.server.drainGrace))
			st.out.endWhenSettled(draining())
		case <-st.server.leaving:
			return draining(), false
		case err := <-read:
			if err != nil {
				return err, false
			}
			read = nil
			st.out.endWhenSettled(nil)
		case err := <-sent:
			return err, true
		case <-st.grpc.Context().Done():
			return st.grpc.Context().Err(), false
		}
	}
}

func (st *agentStream) hasGreeted() bool {
	select {
	case <-st.greeted:
		return true
	default:
		return false
	}
}

// reader is what read knows about the stream so far.
type reader struct {
	*agentStream
	principal *auth.Principal
	hello     bool
	next      uint64 // the sequence number the next batch has to start with; 0: any
}

// read takes messages until the agent closes its side, which is nil, or one
// is refused. It reads the next only when the relay has taken the last, which
// is how a fast agent is slowed.
func (st *agentStream) read(ctx context.Context, p *auth.Principal) error {
	r := &reader{agentStream: st, principal: p}
	m := streamRequest{limit: st.server.batchEvents}
	for {
		if err := st.grpc.RecvMsg(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := r.take(ctx, &m); err != nil {
			return err
		}
	}
}

// take acts on one message.
func (r *reader) take(ctx context.Context, m *streamRequest) error {
	switch {
	case m.err != nil:
		return malformed()
	case m.hello != nil && r.hello:
		return refuse(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_HELLO_REPEATED, "a second hello came")
	case m.hello != nil:
		return r.greet(ctx, m.hello)
	case !r.hello:
		return helloMissing("the first message is not a hello")
	case m.token != nil:
		return r.renew(ctx, m.token.GetToken())
	case m.batch:
		return r.submit(ctx, m)
	}
	return invalid("message", "is absent")
}

func (r *reader) greet(ctx context.Context, hello *pb.Hello) error {
	if hello.GetAgent() == nil {
		return invalid("agent", "is absent")
	}
	if err := r.server.products.check(hello.GetAgent()); err != nil {
		return err
	}
	if err := checkIdentity(hello); err != nil {
		return err
	}
	if err := r.identify(ctx, hello); err != nil {
		return err
	}
	welcome := &pb.Welcome{
		RelayVersion:   r.server.version,
		Instance:       r.server.instance,
		MaxBatchEvents: uint32(r.server.batchEvents),
		TokenExpiresAt: timestamppb.New(r.principal.ExpiresAt),
	}
	if r.server.window > 0 {
		welcome.CoalescingWindow = durationpb.New(r.server.window)
	}
	if r.server.peers != nil {
		welcome.MaxInFlight = durationpb.New(MaxInFlight)
	}
	r.out.put(&pb.StreamResponse{Message: &pb.StreamResponse_Welcome{Welcome: welcome}})
	r.hello = true
	close(r.greeted)
	return nil
}

// renew takes a fresh token of the same organization.
func (r *reader) renew(ctx context.Context, token string) error {
	p, err := r.server.validator.Validate(ctx, token)
	if err != nil {
		return err
	}
	if p.OrganizationID != r.principal.OrganizationID {
		return refuse(codes.Unauthenticated, pb.ErrorReason_ERROR_REASON_TOKEN_REALM, "the fresh token is another organization's")
	}
	r.server.sessions.renew(r.session, p)
	if err := r.server.stillValid(ctx, p); err != nil {
		return err
	}
	r.principal = p
	select {
	case r.renewed <- *p:
	case <-ctx.Done():
		return ctx.Err()
	}
	r.out.put(&pb.StreamResponse{Message: &pb.StreamResponse_TokenAccepted{
		TokenAccepted: &pb.TokenAccepted{TokenExpiresAt: timestamppb.New(p.ExpiresAt)},
	}})
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
	r.traced.add(r.server.tracer.streamed(ctx, r.session.org, m))
	err := r.relay.Submit(ctx, m.first, m.events)
	if errors.Is(err, relay.ErrDraining) {
		return nil
	}
	return err
}

func (r *reader) checkBatch(m *streamRequest) error {
	n := uint64(len(m.events))
	switch {
	case m.tooLarge:
		return batchTooLarge(r.server.batchEvents)
	case n == 0:
		return invalid("batch.events", "is empty")
	case m.first == 0:
		return invalid("batch.first_sequence", "is 0; sequence numbers start from 1")
	case m.first > math.MaxUint64-n:
		return invalid("batch.first_sequence", "leaves no numbers for the batch's events")
	case r.next != 0 && m.first != r.next:
		return refuse(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_SEQUENCE_GAP,
			"the batch starts at %d, and %d was to come", m.first, r.next)
	}
	return nil
}

func batchTooLarge(limit int) error {
	r := refuse(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_BATCH_TOO_LARGE, "the batch holds more than %d events", limit)
	r.field, r.rule = "events", "is longer than the relay accepts"
	return r
}

func helloMissing(why string) error {
	return refuse(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_HELLO_MISSING, "%s", why)
}

func drainMessage(grace time.Duration) *pb.StreamResponse {
	return &pb.StreamResponse{Message: &pb.StreamResponse_Drain{Drain: &pb.Drain{Grace: durationpb.New(grace)}}}
}
