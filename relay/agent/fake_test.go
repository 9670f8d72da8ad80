package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// fakeNet is a network of scripted relays: a real gRPC server for each address,
// over memory. What they answer is the test's script.
type fakeNet struct {
	t      *testing.T
	mu     sync.Mutex
	relays map[string]*fakeRelay
	dials  int
}

// fakeRelay is one relay. Each stream that an agent opens waits in accepted
// for the test to act as its other end.
type fakeRelay struct {
	badgerelayv1.UnimplementedRelayServiceServer
	badgerelayv1.UnimplementedSubscriptionServiceServer
	t        *testing.T
	server   *grpc.Server
	listener *bufconn.Listener
	accepted chan *fakeStream
	calls    fakeCalls
}

// fakeStream is the relay's end of a stream, driven by the test.
type fakeStream struct {
	t     *testing.T
	rpc   grpc.BidiStreamingServer[badgerelayv1.StreamRequest, badgerelayv1.StreamResponse]
	token string
	end   chan error
}

func newFakeNet(t *testing.T) *fakeNet {
	return &fakeNet{t: t, relays: make(map[string]*fakeRelay)}
}

// start starts a relay at address.
func (n *fakeNet) start(address string) *fakeRelay {
	server := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second}))
	r := &fakeRelay{t: n.t, server: server, listener: bufconn.Listen(1 << 20), accepted: make(chan *fakeStream, 16)}
	badgerelayv1.RegisterRelayServiceServer(r.server, r)
	badgerelayv1.RegisterSubscriptionServiceServer(r.server, r)
	go func() { _ = r.server.Serve(r.listener) }() // ends with stop
	n.mu.Lock()
	n.relays[address] = r
	n.mu.Unlock()
	n.t.Cleanup(func() { n.stop(address) })
	return r
}

// stop kills the relay at address: connections break, later ones are refused.
func (n *fakeNet) stop(address string) {
	n.mu.Lock()
	r := n.relays[address]
	delete(n.relays, address)
	n.mu.Unlock()
	if r != nil {
		r.server.Stop()
	}
}

// silent is an address where nobody answers, not with a refusal either.
const silent = "silent"

func (n *fakeNet) dial(ctx context.Context, address string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	r := n.relays[address]
	n.mu.Unlock()
	if address == silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if r == nil {
		return nil, errors.New("connection refused by the test")
	}
	return r.listener.DialContext(ctx)
}

// config returns what an agent of this network needs.
func (n *fakeNet) config(addresses ...string) Config {
	cfg := Config{
		Plaintext: true, AgentID: "agent", Name: "agent", Product: "Test", ProductVersion: "1.0",
		Token:       fixedToken("token"),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(n.dial)},
	}
	for _, a := range addresses {
		cfg.Addresses = append(cfg.Addresses, "passthrough:///"+a)
	}
	return cfg
}

func fixedToken(token string) TokenSource {
	return TokenFunc(func(context.Context, string) (string, time.Time, error) {
		return token, time.Now().Add(8 * time.Hour), nil
	})
}

// Stream hands the stream to the test and lives until the test ends it.
func (r *fakeRelay) Stream(rpc grpc.BidiStreamingServer[badgerelayv1.StreamRequest, badgerelayv1.StreamResponse]) error {
	s := &fakeStream{t: r.t, rpc: rpc, end: make(chan error, 1)}
	md, _ := metadata.FromIncomingContext(rpc.Context())
	if values := md.Get("authorization"); len(values) == 1 {
		s.token = values[0]
	}
	r.accepted <- s
	select {
	case err := <-s.end:
		return err
	case <-rpc.Context().Done():
		return rpc.Context().Err()
	}
}

// accept waits for the next stream.
func (r *fakeRelay) accept() *fakeStream {
	r.t.Helper()
	select {
	case s := <-r.accepted:
		return s
	case <-time.After(time.Hour):
		r.t.Fatal("no stream came within an hour")
		return nil
	}
}

// welcome greets the next stream and lets the agent come to rest.
func (r *fakeRelay) welcome(w *badgerelayv1.Welcome) *fakeStream {
	r.t.Helper()
	s := r.handshake(w)
	synctest.Wait()
	return s
}

// handshake accepts the next stream, reads its hello and welcomes it.
func (r *fakeRelay) handshake(w *badgerelayv1.Welcome) *fakeStream {
	r.t.Helper()
	s := r.accept()
	hello := s.recv().GetHello()
	if got, want := fmt.Sprint(hello.GetAgent().GetName(), hello.GetAgent().GetProduct(), hello.GetAgent().GetProductVersion()), "agentTest1.0"; got != want {
		r.t.Fatalf("hello from %q, want %q", got, want)
	}
	s.send(&badgerelayv1.StreamResponse{Message: &badgerelayv1.StreamResponse_Welcome{Welcome: w}})
	return s
}

// quiet checks that no stream is opened for d.
func (r *fakeRelay) quiet(d time.Duration, why string) {
	r.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	if len(r.accepted) > 0 {
		r.t.Fatalf("a stream was opened within %v, want none: %s", d, why)
	}
}

func (s *fakeStream) recv() *badgerelayv1.StreamRequest {
	s.t.Helper()
	m, err := s.rpc.Recv()
	if err != nil {
		s.t.Fatalf("relay's end: receive: %v", err)
	}
	return m
}

func (s *fakeStream) send(m *badgerelayv1.StreamResponse) {
	s.t.Helper()
	if err := s.rpc.Send(m); err != nil {
		s.t.Fatalf("relay's end: send: %v", err)
	}
}

// batch reads the next message and compares it: first sequence, then
// "mailbox=count" of each event.
func (s *fakeStream) batch(first uint64, want ...string) {
	s.t.Helper()
	b := s.recv().GetBatch()
	var got []string
	for _, e := range b.GetEvents() {
		got = append(got, fmt.Sprintf("%s=%d", e.GetMailbox(), e.GetUnreadCount()))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || b.GetFirstSequence() != first {
		s.t.Fatalf("batch from %d %v, want from %d %v", b.GetFirstSequence(), got, first, want)
	}
}

// settlementDelay wants the agent to allow a delay next.
func (s *fakeStream) settlementDelay(want time.Duration) {
	s.t.Helper()
	m := s.recv().GetSettlementDelay()
	if m == nil || m.GetMaxDelay().AsDuration() != want {
		s.t.Fatalf("the agent said %v, want a settlement delay of %v", m, want)
	}
}

// settle reports everything through a sequence number, with outcomes.
func (s *fakeStream) settle(through uint64, outcomes ...*badgerelayv1.EventOutcome) {
	s.t.Helper()
	s.settlement(&badgerelayv1.Settlement{Through: through, Outcomes: outcomes})
}

func (s *fakeStream) settlement(m *badgerelayv1.Settlement) {
	s.t.Helper()
	s.send(&badgerelayv1.StreamResponse{Message: &badgerelayv1.StreamResponse_Settlement{Settlement: m}})
	synctest.Wait() // the agent has read it
}

func (s *fakeStream) drain(grace time.Duration) {
	s.t.Helper()
	s.send(&badgerelayv1.StreamResponse{Message: &badgerelayv1.StreamResponse_Drain{Drain: &badgerelayv1.Drain{Grace: durationpb.New(grace)}}})
	synctest.Wait()
}

func (s *fakeStream) accepted(until time.Time) {
	s.t.Helper()
	s.send(&badgerelayv1.StreamResponse{Message: &badgerelayv1.StreamResponse_TokenAccepted{
		TokenAccepted: &badgerelayv1.TokenAccepted{TokenExpiresAt: timestamppb.New(until)}}})
	synctest.Wait()
}

func outcome(sequence uint64, o badgerelayv1.Outcome) *badgerelayv1.EventOutcome {
	return &badgerelayv1.EventOutcome{Sequence: sequence, Outcome: o}
}

// harness is an agent that runs against a fake network.
type harness struct {
	t        *testing.T
	a        *Agent
	stop     context.CancelFunc
	mu       sync.Mutex
	results  []string  // "mailbox=count outcome", as OnOutcome was told
	failures []Failure // as OnFailure was told
}

// run starts an agent; it is stopped, and its end checked, with the test.
func run(t *testing.T, cfg Config) *harness {
	t.Helper()
	h := &harness{t: t}
	cfg.OnOutcome = func(r Result) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.results = append(h.results, fmt.Sprintf("%s=%d %s", r.Mailbox, r.Unread, r.Outcome))
	}
	cfg.OnFailure = func(f Failure) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.failures = append(h.failures, f)
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.a = a
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	h.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
		ended <- nil
		CheckLedger(t, a)
	}
	t.Cleanup(h.stop)
	return h
}

// set sets a count in arrival order and checks the ledger.
func (h *harness) set(mailbox string, unread uint32) {
	h.t.Helper()
	if err := h.a.Set(mailbox, unread, 0, 0); err != nil {
		h.t.Fatalf("Set(%q, %d): %v", mailbox, unread, err)
	}
	CheckLedger(h.t, h.a)
}

// want compares what OnOutcome was told so far, and checks the ledger.
func (h *harness) want(results ...string) {
	h.t.Helper()
	synctest.Wait()
	CheckLedger(h.t, h.a)
	h.mu.Lock()
	defer h.mu.Unlock()
	if fmt.Sprint(h.results) != fmt.Sprint(results) {
		h.t.Fatalf("results %v, want %v", h.results, results)
	}
}

// wantFailures compares the kinds of failures told so far.
func (h *harness) wantFailures(kinds ...FailureKind) []Failure {
	h.t.Helper()
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	var got []FailureKind
	for _, f := range h.failures {
		got = append(got, f.Kind)
	}
	if fmt.Sprint(got) != fmt.Sprint(kinds) {
		h.t.Fatalf("failures %v (%v), want %v", got, h.failures, kinds)
	}
	return h.failures
}

// CheckLedger checks every invariant of an agent's unsettled set:
// submitted = settled + replaced + unsettled, and that each held entry is where
// it says.
func CheckLedger(t *testing.T, a *Agent) {
	t.Helper()
	l := a.Ledger()
	if got, want := l.Settled()+l.Replaced+l.Unsettled, l.Submitted; got != want {
		t.Fatalf("ledger: settled %d + replaced %d + unsettled %d = %d, want submitted %d", l.Settled(), l.Replaced, l.Unsettled, got, want)
	}
	u := a.set
	u.mu.Lock()
	defer u.mu.Unlock()
	ready := make(map[*entry]bool)
	for _, e := range u.ready[u.head:] {
		if ready[e] || e.place != placeReady {
			t.Fatalf("ready: %q twice (%t) or elsewhere too (%d)", e.mailbox, ready[e], e.place)
		}
		ready[e] = true
	}
	listed := make(map[*entry]time.Time)
	for _, d := range u.uncertain {
		for _, e := range d.entries {
			if before, twice := listed[e]; twice || u.entries[e.mailbox] != e {
				t.Fatalf("entry of %q is uncertain until %v and until %v, or held no more", e.mailbox, before, d.until)
			}
			listed[e] = d.until
		}
	}
	settled := 0
	for name, e := range u.entries {
		if !e.uncertainUntil.Equal(listed[e]) {
			t.Fatalf("entry of %q is uncertain until %v, and sent once more at %v", name, e.uncertainUntil, listed[e])
		}
		if e.mailbox != name {
			t.Fatalf("entry of %q held as %q", e.mailbox, name)
		}
		if e.settled {
			settled++
		}
		if flies := e.sentOn != nil; flies && e.sentOn.bySequence[e.sequence] != e {
			t.Fatalf("entry of %q is not in flight as %d", name, e.sequence)
		} else if (e.place == placeFlight || e.place == placeBehind) && !flies || e.place == placeUncertain && (flies || !e.settled || e.uncertainUntil.IsZero()) {
			t.Fatalf("entry of %q is at %d, in flight: %t, settled: %t, uncertain until %v", name, e.place, flies, e.settled, e.uncertainUntil)
		}
		if ready[e] != (e.place == placeReady) {
			t.Fatalf("entry of %q is nowhere", name)
		}
		delete(ready, e)
	}
	if len(ready) > 0 {
		t.Fatalf("%d ready entries are held no more", len(ready))
	}
	if settled != u.settled {
		t.Fatalf("%d entries are settled, counted %d", settled, u.settled)
	}
}
