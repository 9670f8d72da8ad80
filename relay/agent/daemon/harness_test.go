package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"badgerelay/auth"
	"badgerelay/auth/certs"
	badgerelayv1 "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/keyring"
	"badgerelay/relay/agent/source"
)

// world is a daemon between a relay and a mail server, both small enough to
// script. It runs in a bubble. This is how it is used:
//
//	w := newWorld(t)
//	w.relay.subscribe("ann")
//	w.server.set("ann", 3)
//	w.start()
//	w.wantBadges(map[string]uint32{"ann": 3}, "counted at the start")
type world struct {
	t      *testing.T
	relay  *relay
	server *server
	daemon *Daemon
	stop   func() error // drains, and returns what Run returned
}

// What TestMain makes, once: a key takes longer than all tests.
var (
	store     *certs.Store
	certified time.Time
)

func newWorld(t *testing.T, changes ...func(*Config)) *world {
	t.Helper()
	time.Sleep(time.Until(certified)) // a bubble begins before the certificate does
	w := &world{t: t, relay: newRelay(t), server: &server{unread: make(map[string]uint32), refused: make(map[string]bool), sick: make(map[string]bool), hangs: make(map[string]bool), versions: make(map[string][2]uint64), deleted: make(map[string]uint32)}}
	c := Config{
		Sources: []source.Source{w.server}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Relay: agent.Config{
			Addresses: []string{"passthrough:///relay"}, Plaintext: true, AgentID: "test", Name: "test",
			DialOptions: []grpc.DialOption{grpc.WithContextDialer(w.relay.dial), grpc.WithTransportCredentials(insecure.NewCredentials())},
		},
		Keys: keyring.Config{Store: store, Organization: "fabrikam.com", Issuer: func(p *certs.Pair) (*auth.Issuer, error) {
			return auth.NewIssuer(auth.IssuerConfig{
				Key: p.Key, Certificate: p.Certificate, Realm: "fabrikam.com",
				TargetPrincipal: "5f2b8f0e-6f0c-4f4e-9a53-5b0f4a2b7c11", Authority: "relay.test",
			})
		}},
	}
	for _, change := range changes {
		change(&c)
	}
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	w.daemon = d
	return w
}

// start runs the daemon; it is stopped at the end of the test, at the latest.
func (w *world) start() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.daemon.Run(ctx) }() // ends with ctx; stop waits for it
	w.stop = sync.OnceValue(func() error {
		budget, done := context.WithTimeout(context.Background(), drainBudget)
		defer done()
		_ = w.daemon.Drain(budget) // a deaf relay does not settle
		cancel()
		return errors.Join(<-ended, w.daemon.Close())
	})
	w.t.Cleanup(func() {
		if err := w.stop(); err != nil {
			w.t.Errorf("Run: %v", err)
		}
		w.relay.close()
	})
	synctest.Wait()
}

// drainBudget is what a stop may take.
const drainBudget = 10 * time.Second

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// wantBadges compares what the relay was last told of each mailbox.
func (w *world) wantBadges(want map[string]uint32, why string) {
	w.t.Helper()
	w.checkWaiting()
	w.relay.mu.Lock()
	defer w.relay.mu.Unlock()
	for mailbox, n := range want {
		if got, told := w.relay.badges[mailbox]; !told || got != n {
			w.t.Errorf("%s has %d (told: %v), want %d: %s", mailbox, got, told, n, why)
			break // the others are wrong for the same reason
		}
	}
	if len(w.relay.badges) != len(want) {
		w.t.Errorf("%d mailboxes told, want %d: %s", len(w.relay.badges), len(want), why)
	}
}

// checkWaiting counts again what mailboxes keeps a counter of.
func (w *world) checkWaiting() {
	w.t.Helper()
	m := w.daemon.mailboxes
	m.mu.Lock()
	defer m.mu.Unlock()
	waiting, idle := 0, 0
	for _, box := range m.known {
		switch {
		case box.state > isIdle:
			waiting++
		case box.state == isIdle:
			idle++
		}
	}
	if m.waiting != waiting || len(m.idle) != idle || !m.blind && waiting+idle != len(m.known) {
		w.t.Errorf("%d waiting and %d idle, want %d and %d of %d", m.waiting, len(m.idle), waiting, idle, len(m.known))
	}
}

// wantAsked compares how often the mail server was asked, and starts over.
func (w *world) wantAsked(least, most int, why string) {
	w.t.Helper()
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	if n := w.server.asked; n < least || n > most {
		w.t.Errorf("asked %d times, want %d to %d: %s", n, least, most, why)
	}
	w.server.asked = 0
}

// relay settles what it is sent, and tells who has a device.
type relay struct {
	badgerelayv1.UnimplementedRelayServiceServer
	badgerelayv1.UnimplementedSubscriptionServiceServer
	t *testing.T

	mu        sync.Mutex // guards what follows
	listener  *bufconn.Listener
	server    *grpc.Server
	mailboxes map[string]bool
	changes   map[chan *badgerelayv1.MailboxChange]bool // of each watch
	badges    map[string]uint32
	deaf      bool            // settles nothing
	maxDelay  time.Duration   // of settlements; never changes
	newer     map[string]bool // another agent has told a newer count of them
	events    int
}

func newRelay(t *testing.T) *relay {
	r := &relay{
		t: t, mailboxes: make(map[string]bool), badges: make(map[string]uint32), newer: make(map[string]bool),
		changes: make(map[chan *badgerelayv1.MailboxChange]bool),
	}
	r.open()
	return r
}

// open serves, at first or after close.
func (r *relay) open() {
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true})) // as a relay
	badgerelayv1.RegisterRelayServiceServer(server, r)
	badgerelayv1.RegisterSubscriptionServiceServer(server, r)
	r.mu.Lock()
	r.listener, r.server = listener, server
	r.mu.Unlock()
	go func() { _ = server.Serve(listener) }() // ends with close; the bubble waits for it
}

// close kills the relay.
func (r *relay) close() {
	r.mu.Lock()
	server := r.server
	r.mu.Unlock()
	server.Stop()
}

func (r *relay) dial(ctx context.Context, _ string) (net.Conn, error) {
	r.mu.Lock()
	listener := r.listener
	r.mu.Unlock()
	return listener.DialContext(ctx)
}

func (r *relay) subscribe(mailboxes ...string) {
	r.change(badgerelayv1.MailboxChangeKind_MAILBOX_CHANGE_KIND_SUBSCRIBED, mailboxes)
}

func (r *relay) unsubscribe(mailboxes ...string) {
	r.change(badgerelayv1.MailboxChangeKind_MAILBOX_CHANGE_KIND_UNSUBSCRIBED, mailboxes)
}

func (r *relay) change(kind badgerelayv1.MailboxChangeKind, mailboxes []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range mailboxes {
		r.mailboxes[m] = kind == badgerelayv1.MailboxChangeKind_MAILBOX_CHANGE_KIND_SUBSCRIBED
		for c := range r.changes {
			c <- &badgerelayv1.MailboxChange{Mailbox: m, Kind: kind}
		}
	}
}

func (r *relay) WatchMailboxes(_ *badgerelayv1.WatchMailboxesRequest, rpc grpc.ServerStreamingServer[badgerelayv1.WatchMailboxesResponse]) error {
	changes := make(chan *badgerelayv1.MailboxChange, 1000)
	r.mu.Lock()
	first := &badgerelayv1.WatchMailboxesResponse{Complete: true}
	for _, m := range slices.Sorted(maps.Keys(r.mailboxes)) {
		if r.mailboxes[m] {
			first.Changes = append(first.Changes, &badgerelayv1.MailboxChange{Mailbox: m, Kind: badgerelayv1.MailboxChangeKind_MAILBOX_CHANGE_KIND_SUBSCRIBED})
		}
	}
	r.changes[changes] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.changes, changes)
	}()
	if err := rpc.Send(first); err != nil {
		return err
	}
	for {
		select {
		case c := <-changes:
			if err := rpc.Send(&badgerelayv1.WatchMailboxesResponse{Changes: []*badgerelayv1.MailboxChange{c}}); err != nil {
				return err
			}
		case <-rpc.Context().Done():
			return nil
		}
	}
}

// Stream settles at once, and what it may hold back when the agent allows that no more.
func (r *relay) Stream(rpc grpc.BidiStreamingServer[badgerelayv1.StreamRequest, badgerelayv1.StreamResponse]) error {
	var held *badgerelayv1.StreamResponse
	holds := false
	for {
		m, err := rpc.Recv()
		if err != nil {
			return nil //nolint:nilerr // the agent has left
		}
		switch message := m.GetMessage().(type) {
		case *badgerelayv1.StreamRequest_Hello:
			err = rpc.Send(&badgerelayv1.StreamResponse{Message: &badgerelayv1.StreamResponse_Welcome{
				Welcome: &badgerelayv1.Welcome{RelayVersion: "test", Instance: "one", MaxSettlementDelay: durationpb.New(r.maxDelay)}}})
		case *badgerelayv1.StreamRequest_SettlementDelay:
			if holds = message.SettlementDelay.GetMaxDelay().AsDuration() > 0; !holds && held != nil {
				err = rpc.Send(held)
			}
		case *badgerelayv1.StreamRequest_Batch:
			if held = r.settlement(message.Batch); held != nil && !holds {
				err = rpc.Send(held)
			}
		}
		if err != nil {
			return err
		}
	}
}

// settlement is the answer to a batch, and all before; nil: there is none.
func (r *relay) settlement(b *badgerelayv1.Batch) *badgerelayv1.StreamResponse {
	var outcomes []*badgerelayv1.EventOutcome
	r.mu.Lock()
	for i, e := range b.GetEvents() {
		r.events++
		if r.newer[e.GetMailbox()] {
			outcomes = append(outcomes, &badgerelayv1.EventOutcome{Sequence: b.GetFirstSequence() + uint64(i), Outcome: badgerelayv1.Outcome_OUTCOME_STALE})
			continue
		}
		r.badges[e.GetMailbox()] = e.GetUnreadCount()
	}
	deaf := r.deaf
	r.mu.Unlock()
	if deaf {
		return nil
	}
	through := b.GetFirstSequence() + uint64(len(b.GetEvents())) - 1
	return &badgerelayv1.StreamResponse{Message: &badgerelayv1.StreamResponse_Settlement{
		Settlement: &badgerelayv1.Settlement{Through: through, Outcomes: outcomes}}}
}

// server is a mail server that can be asked, and a source that tells changes.
type server struct {
	mu       sync.Mutex // guards what follows
	unread   map[string]uint32
	refused  map[string]bool
	sick     map[string]bool // their counts fail
	hangs    map[string]bool // they are not answered
	versions map[string][2]uint64
	deleted  map[string]uint32
	down     error
	slow     time.Duration // before an answer
	asked    int
	peeked   int
	sink     source.Sink
	status   source.Status
}

// answerTimeout is how long a source waits for an answer.
const answerTimeout = 30 * time.Second

// Count implements source.Counter.
func (s *server) Count(ctx context.Context, mailbox string) (source.Count, error) {
	s.mu.Lock()
	asked, version, deleted := time.Now(), s.versions[mailbox], s.deleted[mailbox]
	s.asked++
	unread, refused, down, slow, hangs := s.unread[mailbox], s.refused[mailbox], s.down, s.slow, s.hangs[mailbox]
	if s.sick[mailbox] {
		down = fmt.Errorf("%w: NO [SERVERBUG] index is broken", source.ErrUnavailable)
	}
	s.mu.Unlock()
	time.Sleep(slow)
	if hangs {
		select {
		case <-time.After(answerTimeout):
		case <-ctx.Done():
			return source.Count{}, ctx.Err()
		}
		return source.Count{}, fmt.Errorf("%w: no answer in time", source.ErrUnavailable)
	}
	switch {
	case down != nil:
		return source.Count{}, down
	case refused:
		return source.Count{}, source.ErrMailbox
	}
	return source.Count{Mailbox: mailbox, Unread: unread, Asked: asked, Epoch: version[0], Version: version[1], Deleted: deleted}, nil
}

// Peek implements source.Counter.
func (s *server) Peek(_ context.Context, mailbox string) (source.Count, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peeked++
	return source.Count{Mailbox: mailbox, Unread: s.unread[mailbox]}, s.down
}

// Name implements source.Source.
func (s *server) Name() string { return "scripted" }

// Status implements source.Source.
func (s *server) Status() source.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run implements source.Source.
func (s *server) Run(ctx context.Context, sink source.Sink) error {
	s.mu.Lock()
	s.sink = sink
	s.mu.Unlock()
	<-ctx.Done()
	return nil
}

// set changes a count without a word.
func (s *server) set(mailbox string, unread uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unread[mailbox] = unread
}

// mend has a mailbox counted that was refused or sick.
func (s *server) mend(mailbox string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.refused, mailbox)
	delete(s.sick, mailbox)
}

func (s *server) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = err
}

// pushing is a source that tells, and can't be asked.
type pushing struct{ sink source.Sink }

// Name implements source.Source.
func (*pushing) Name() string { return "pushing" }

// Status implements source.Source.
func (*pushing) Status() source.Status { return source.Status{} }

// Run implements source.Source.
func (p *pushing) Run(ctx context.Context, sink source.Sink) error {
	p.sink = sink
	<-ctx.Done()
	return nil
}
