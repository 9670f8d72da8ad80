package serve

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"badgerelay/auth"
	"badgerelay/auth/certs"
	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/keyring"
)

// What TestMain makes, once: a key takes longer than all tests.
var (
	store     *certs.Store
	certified time.Time
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "serve")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	s, err := certs.OpenStore(dir)
	if err == nil {
		_, _, err = s.Ensure("fabrikam.com")
	}
	if err != nil {
		panic(err)
	}
	store, certified = s, time.Now()
	return m.Run()
}

// newServer returns a server whose relay is away. It runs in a bubble.
func newServer(t *testing.T, c *config.Config, changes ...func(*Options)) *Server {
	t.Helper()
	time.Sleep(time.Until(certified)) // a bubble begins before the certificate does
	c.Ops.Address = "off"
	away := func(context.Context, string) (net.Conn, error) { return nil, errors.New("the relay is away") }
	o := Options{
		Config: c, Log: t.Output(), Version: "test",
		Relay: agent.Config{
			Addresses: []string{"passthrough:///relay"}, Plaintext: true, AgentID: "test", Name: "test",
			DialOptions: []grpc.DialOption{grpc.WithContextDialer(away), grpc.WithTransportCredentials(insecure.NewCredentials())},
		},
		Keys: keyring.Config{Store: store, Organization: "fabrikam.com", Issuer: func(p *certs.Pair) (*auth.Issuer, error) {
			return auth.NewIssuer(auth.IssuerConfig{
				Key: p.Key, Certificate: p.Certificate, Realm: "fabrikam.com",
				TargetPrincipal: "5f2b8f0e-6f0c-4f4e-9a53-5b0f4a2b7c11", Authority: "relay.test",
			})
		}},
	}
	for _, change := range changes {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serve runs s until the test ends.
func serve(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }() // ends with ctx; Cleanup waits for it
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Wait()
}
