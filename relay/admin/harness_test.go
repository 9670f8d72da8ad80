package admin

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"badgerelay/auth"
	"badgerelay/auth/authtest"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/ingest"
	"badgerelay/relay/internal/service/servicetest"
	"badgerelay/relay/registry"
)

const testApp = "com.example.mail"

var wantRefusal, wantField = servicetest.WantRefusal, servicetest.WantField

// world is a relay without APNs, its agents' server, and a real registry.
type world struct {
	t        testing.TB
	registry registry.Registry
	relay    *relay.Relay
	agents   *ingest.Server
	listener *bufconn.Listener // of agents
}

// newWorld starts a world; the test's end stops it. adjust may change the
// configuration of the agents' server.
func newWorld(t testing.TB, adjust ...func(*ingest.Config)) *world {
	t.Helper()
	db, err := registry.OpenSQLite(t.Context(), registry.SQLiteConfig{Path: filepath.Join(t.TempDir(), "registry.db"), Readers: 2})
	if err != nil {
		t.Fatal(err)
	}
	return newWorldOver(t, db, adjust...)
}

// newWorldOver is newWorld with a registry, which the test's end closes.
func newWorldOver(t testing.TB, db registry.Registry, adjust ...func(*ingest.Config)) *world {
	t.Helper()
	w := &world{t: t, listener: bufconn.Listen(1 << 16), registry: db}
	validator, err := auth.NewValidator(auth.Config{Keys: db, Principal: authtest.Principal, Authorities: []string{authtest.Authority}})
	if err != nil {
		t.Fatal(err)
	}
	if w.relay, err = relay.New(relay.Config{Subscriptions: db, Apps: []string{testApp}}); err != nil {
		t.Fatal(err)
	}
	c := ingest.Config{Relay: w.relay, Registry: db, Validator: validator, Apps: []string{testApp}}
	for _, f := range adjust {
		f(&c)
	}
	if w.agents, err = ingest.New(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	serving, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.relay.Run(ctx) })
	wg.Go(func() {
		defer cancel()
		if err := w.agents.Run(serving, w.listener); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		wg.Wait()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// admin starts the operators' server of a world on a unix socket.
func (w *world) admin(adjust ...func(*Config)) pb.AdminServiceClient {
	w.t.Helper()
	c := Config{Relay: w.relay, Registry: w.registry, Agents: w.agents}
	for _, f := range adjust {
		f(&c)
	}
	s, err := New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	path := filepath.Join(w.t.TempDir(), "a")
	l, err := net.Listen("unix", path)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx, l); err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close(); cancel(); wg.Wait() })
	return pb.NewAdminServiceClient(conn)
}

// enrol adds fabrikam.com.
func (w *world) enrol() registry.Organization {
	w.t.Helper()
	o, err := w.registry.AddOrganization(w.t.Context(), registry.NewOrganization{Name: "fabrikam.com"})
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// agent opens a stream of an agent of the organization with these events, and returns
// when all have settled. The stream stays open.
func (w *world) agent(o registry.Organization, events ...*pb.Event) {
	w.t.Helper()
	key := testKey("agent")
	if _, err := w.registry.AddCredential(w.t.Context(), o.ID, registry.NewCredential{Certificate: key.Certificate.Raw}); err != nil {
		w.t.Fatal(err)
	}
	issuer, err := auth.NewIssuer(auth.IssuerConfig{
		Key: key.Private, Certificate: key.Certificate, Realm: o.Name, TargetPrincipal: authtest.Principal, Authority: authtest.Authority,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	token, _, err := issuer.Token(w.t.Context(), "")
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///relay", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return w.listener.DialContext(ctx) }))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	stream, err := pb.NewRelayServiceClient(conn).Stream(metadata.AppendToOutgoingContext(w.t.Context(), "authorization", "Bearer "+token))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range []*pb.StreamRequest{
		{Message: &pb.StreamRequest_Hello{Hello: &pb.Hello{Agent: &pb.Agent{Name: "mx1.example.com"}, AgentId: "mx1", Instance: "1", Number: 1}}},
		{Message: &pb.StreamRequest_Batch{Batch: &pb.Batch{FirstSequence: 1, Events: events}}},
	} {
		if err := stream.Send(m); err != nil {
			w.t.Fatal(err)
		}
	}
	for through := uint64(0); through < uint64(len(events)); {
		m, err := stream.Recv()
		if err != nil {
			w.t.Fatal(err)
		}
		through = m.GetSettlement().GetThrough()
	}
}

// testKey makes a key that is valid whenever tests think they run.
func testKey(name string) *authtest.Key {
	return authtest.NewKeyValid(name, time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC))
}

// device is a device token made of one digit.
func device(digit string) string { return strings.Repeat(digit, 64) }
