package ingest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"badgerelay/apns"
	"badgerelay/auth"
	"badgerelay/auth/authtest"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/internal/service/servicetest"
	"badgerelay/relay/registry"
)

const (
	testPrincipal = authtest.Principal
	testAuthority = authtest.Authority
	testApp       = "com.example.mail"
)

// world is a relay with everything but APNs: a real registry, validator, relay
// and server, over connections in memory.
type world struct {
	t         testing.TB
	registry  *registry.SQLite
	relay     *relay.Relay
	validator *auth.Validator
	server    *Server
	listener  *bufconn.Listener
	conn      *grpc.ClientConn
	log       *lockedBuilder
	stopped   chan struct{} // closed when the server's Run has returned
	stop      context.CancelFunc
	restart   func() // the process, with nothing left but the registry

	wake   chan struct{} // one slot: the fake APNs looks for work
	mu     sync.Mutex
	mute   bool // the fake APNs takes nothing
	pushes []apns.Request
}

// newWorld starts a world; the test's end stops it. adjust may change the
// server's configuration.
func newWorld(t testing.TB, adjust ...func(*Config)) *world {
	t.Helper()
	return newWorldOf(t, func(*relay.Config) {}, adjust...)
}

// newWorldOf is newWorld with another configuration of the relay.
func newWorldOf(t testing.TB, configure func(*relay.Config), adjust ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, listener: bufconn.Listen(1 << 16), log: &lockedBuilder{}, wake: make(chan struct{}, 1)}
	db, err := registry.OpenSQLite(t.Context(), registry.SQLiteConfig{Path: filepath.Join(t.TempDir(), "registry.db"), Readers: 2})
	if err != nil {
		t.Fatal(err)
	}
	w.registry = db
	w.validator, err = auth.NewValidator(auth.Config{
		Keys: db, Principal: testPrincipal, Authorities: []string{testAuthority},
	})
	if err != nil {
		t.Fatal(err)
	}
	rc := relay.Config{Subscriptions: db, Apps: []string{testApp}, Window: -1}
	configure(&rc)
	halt := w.start(rc, adjust)
	w.restart = func() {
		halt()
		w.listener = bufconn.Listen(1 << 16)
		halt = w.start(rc, adjust)
	}
	t.Cleanup(func() {
		halt()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// start starts what ends with the process, until halt.
func (w *world) start(rc relay.Config, adjust []func(*Config)) (halt func()) {
	var err error
	if w.relay, err = relay.New(rc); err != nil {
		w.t.Fatal(err)
	}
	unlisten := w.registry.OnChange(func(c []registry.Change) { Tell(w.relay, w.validator, c) })
	c := Config{
		Relay: w.relay, Registry: w.registry, Validator: w.validator, Apps: []string{testApp},
		Version: "1.2.3", Instance: "one", Logger: slog.New(slog.NewTextHandler(w.log, nil)),
	}
	for _, f := range adjust {
		f(&c)
	}
	if w.server, err = New(c); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	serving, stop := context.WithCancel(context.Background())
	w.stop, w.stopped = stop, make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.relay.Run(ctx) })
	wg.Go(func() { w.runAPNs(ctx) })
	wg.Go(func() {
		defer close(w.stopped)
		if err := w.server.Run(serving, w.listener); err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	w.server.SetReady(true)
	w.conn = w.dial()
	return func() {
		_ = w.conn.Close()
		stop()
		cancel()
		wg.Wait()
		unlisten()
	}
}

// dial connects; around may come between.
func (w *world) dial(around ...func(net.Conn) net.Conn) *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient("passthrough:///relay",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := w.listener.DialContext(ctx)
			for _, f := range around {
				if err == nil {
					c = f(c)
				}
			}
			return c, err
		}),
		grpc.WithInitialWindowSize(1<<16), grpc.WithInitialConnWindowSize(1<<16), // which do not grow
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// wakeAPNs has the fake APNs look for work.
func (w *world) wakeAPNs() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// runAPNs accepts every push, unless mute.
func (w *world) runAPNs(ctx context.Context) {
	w.relay.SetWake(testApp, w.wakeAPNs)
	source := w.relay.Source(testApp)
	for {
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
		w.mu.Lock()
		mute := w.mute
		w.mu.Unlock()
		for requests := make([]apns.Request, 16); !mute; {
			n, _ := source.Take(requests)
			if n == 0 {
				break
			}
			w.mu.Lock()
			w.pushes = append(w.pushes, requests[:n]...)
			w.mu.Unlock()
			results := make([]apns.Result, n)
			for i := range results {
				results[i] = apns.Result{Tag: requests[i].Tag, WrittenAt: time.Now()}
			}
			source.Done(results)
		}
	}
}

func (w *world) setMute(mute bool) {
	w.mu.Lock()
	w.mute = mute
	w.mu.Unlock()
	w.wakeAPNs()
}

// pushed returns the pushes that the fake APNs took.
func (w *world) pushed() []apns.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.pushes)
}

// organization is an enrolled organization with one credential.
type organization struct {
	w          *world
	id         relay.OrganizationID
	name       string
	credential string
	key        *authtest.Key
}

// enrol enrols an organization with one of the test keys.
func (w *world) enrol(name string, key *authtest.Key, limits ...registry.Limits) *organization {
	w.t.Helper()
	n := registry.NewOrganization{Name: name}
	if len(limits) > 0 {
		n.Limits = limits[0]
	}
	o, err := w.registry.AddOrganization(w.t.Context(), n)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := w.registry.AddCredential(w.t.Context(), o.ID, registry.NewCredential{Certificate: key.Certificate.Raw})
	if err != nil {
		w.t.Fatal(err)
	}
	return &organization{w: w, id: o.ID, name: name, credential: c.ID, key: key}
}

// token signs a token of the organization.
func (o *organization) token(lifetime time.Duration) string {
	o.w.t.Helper()
	issuer, err := auth.NewIssuer(auth.IssuerConfig{
		Key: o.key.Private, Certificate: o.key.Certificate, Realm: o.name,
		TargetPrincipal: testPrincipal, Authority: testAuthority, Lifetime: lifetime,
	})
	if err != nil {
		o.w.t.Fatal(err)
	}
	token, _, err := issuer.Token(o.w.t.Context(), "")
	if err != nil {
		o.w.t.Fatal(err)
	}
	return token
}

// ctx returns a context of calls by the organization.
func (o *organization) ctx() context.Context {
	return withToken(o.w.t.Context(), o.token(time.Hour))
}

func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// subscribe puts a device, told apart by a digit, on a mailbox.
func (o *organization) subscribe(mailbox string, digit string) *pb.SubscribeResponse {
	o.w.t.Helper()
	answer, err := pb.NewSubscriptionServiceClient(o.w.conn).Subscribe(o.ctx(), &pb.SubscribeRequest{
		Mailbox: mailbox, App: testApp, DeviceToken: device(digit),
	})
	if err != nil {
		o.w.t.Fatalf("subscribe: %v", err)
	}
	return answer
}

// device is a device token made of one digit.
func device(digit string) string { return strings.Repeat(digit, 64) }

// agent is one stream as an agent sees it, a script: do, want, do, want.
type agent struct {
	t      testing.TB
	stream grpc.BidiStreamingClient[pb.StreamRequest, pb.StreamResponse]
	cancel context.CancelFunc
}

// open opens a stream without a word.
func (w *world) open(token string) *agent {
	w.t.Helper()
	ctx, cancel := context.WithCancel(withToken(w.t.Context(), token))
	w.t.Cleanup(cancel)
	stream, err := pb.NewRelayServiceClient(w.conn).Stream(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return &agent{t: w.t, stream: stream, cancel: cancel}
}

// connect opens a stream and gets the welcome.
func (o *organization) connect() *agent {
	o.w.t.Helper()
	a := o.w.open(o.token(time.Hour))
	a.hello()
	a.welcome()
	return a
}

// send sends a message; what becomes of the stream shows when receiving.
func (a *agent) send(m *pb.StreamRequest) {
	a.t.Helper()
	if err := a.stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
		a.t.Fatalf("send: %v", err)
	}
}

func (a *agent) hello() { a.t.Helper(); a.send(helloOf(&pb.Agent{Name: "mx1.example.com"})) }

func helloOf(agent *pb.Agent) *pb.StreamRequest {
	return &pb.StreamRequest{Message: &pb.StreamRequest_Hello{Hello: &pb.Hello{
		Agent: agent, AgentId: rand.Text(), Instance: "1", Number: 1, // each an agent of its own
	}}}
}

func (a *agent) freshToken(token string) {
	a.t.Helper()
	a.send(&pb.StreamRequest{Message: &pb.StreamRequest_FreshToken{FreshToken: &pb.FreshToken{Token: token}}})
}

func (a *agent) batch(first uint64, events ...*pb.Event) {
	a.t.Helper()
	a.send(batchOf(first, events...))
}

func (a *agent) receive() *pb.StreamResponse {
	a.t.Helper()
	m, err := a.stream.Recv()
	if err != nil {
		a.t.Fatalf("receive: %v", err)
	}
	return m
}

func (a *agent) welcome() *pb.Welcome {
	a.t.Helper()
	m := a.receive().GetWelcome()
	if m == nil {
		a.t.Fatal("the first message is not a welcome")
	}
	return m
}

// settled receives settlements until everything up to the sequence number has
// settled, and returns the outcomes that were told.
func (a *agent) settled(through uint64) map[uint64]*pb.EventOutcome {
	a.t.Helper()
	outcomes := map[uint64]*pb.EventOutcome{}
	for {
		s := a.receive().GetSettlement()
		for _, o := range s.GetOutcomes() {
			outcomes[o.GetSequence()] = o
		}
		if s.GetThrough() >= through {
			return outcomes
		}
	}
}

// ends receives until the stream has ended, and wants this end.
func (a *agent) ends(code codes.Code, reason string) error {
	a.t.Helper()
	for {
		_, err := a.stream.Recv()
		if err == nil {
			continue
		}
		wantRefusal(a.t, err, code, reason)
		return err
	}
}

var (
	wantRefusal, wantField = servicetest.WantRefusal, servicetest.WantField
	reasonOf               = servicetest.Reason
)

func metadataOf(err error) map[string]string { return servicetest.Info(err).GetMetadata() }

// testKey returns one of the keys. Called in a bubble it must have been called
// outside before: making one takes a while. Bubbles begin in 2000.
func testKey(i int) *authtest.Key {
	return authtest.NewKeyValid(fmt.Sprint("key ", i), time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC))
}

// lockedBuilder is a log that may be read while it is written.
type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
