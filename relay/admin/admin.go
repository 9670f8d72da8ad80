// Package admin is the operators' gRPC service, on a listener of its own: organizations
// and their credentials, subscriptions, and how the relays are.
//
//	operator -> service.Calls (status, metrics) -> handler -> registry, ingest, relay
//
// It asks nobody for a token: whoever reaches the listener is an operator. What agents
// may do as well, package service does for both.
//
// The package keeps no state, and decides nothing about badges or tokens.
package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/reflection"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/ingest"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// stopTime is how long calls of operators may take to end once Run stops.
const stopTime = 5 * time.Second

// Config says how a Server works. Relay, Registry and Agents are required.
type Config struct {
	Relay    *relay.Relay
	Registry Registry
	// Agents is the agents' server, whose streams, apps and reports are asked for.
	Agents *ingest.Server

	// Status returns a new message with what only the process knows: version,
	// instance, start, readiness, apps and certificates. nil: nothing of it is told.
	Status func(context.Context) *pb.GetStatusResponse

	// Place is this relay's name among those that share the registry, and Others
	// returns them, itself included. nil: nobody shares it.
	Place  string
	Others func(context.Context) ([]registry.Presence, error)

	// Probe tests the way to Apple, of one app or, with "", of all. An app it
	// does not know is never passed. nil: Probe is not implemented.
	Probe func(ctx context.Context, app string) ([]ProbeStage, error)

	// StatusKey makes a key to the status page and says where that is. nil:
	// there is no page.
	StatusKey func() (key string, end time.Time, url string)

	// TLS is for listeners beyond a unix socket; it has to verify clients.
	TLS *tls.Config

	// DisableReflection turns the reflection services off.
	DisableReflection bool

	Logger     *slog.Logger          // nil: nothing is logged
	Registerer prometheus.Registerer // nil: no metrics are registered
}

// ProbeStage is one stage of a probe.
type ProbeStage struct {
	Name     string // what was tried
	OK       bool
	Detail   string // what came back, for people
	Duration time.Duration
}

// Server is the operators' server. It asks nobody for a token: whoever reaches its
// listener is an operator.
type Server struct {
	config  Config
	grpc    *grpc.Server
	handler *handler
}

// New makes a Server that serves nothing until Run.
func New(c Config) (*Server, error) {
	if c.Relay == nil || c.Registry == nil || c.Agents == nil {
		return nil, errors.New("configure admin: Relay, Registry or Agents is missing")
	}
	if c.TLS != nil && c.TLS.ClientAuth != tls.RequireAndVerifyClientCert {
		return nil, errors.New("configure admin: TLS does not verify clients")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := service.NewMetrics(c.Registerer, "admin_", service.MethodNames(&pb.AdminService_ServiceDesc))
	if err != nil {
		return nil, fmt.Errorf("register admin metrics: %w", err)
	}
	calls := service.Calls{Logger: c.Logger, Metrics: m}
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(service.NewCodec()),
		grpc.MaxRecvMsgSize(service.MaxMessageSize),
		grpc.WaitForHandlers(true), // stopped means that none is left
		grpc.ChainStreamInterceptor(calls.Stream),
	}
	if c.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(c.TLS)))
	}
	s := &Server{config: c, grpc: grpc.NewServer(options...)}
	s.handler = &handler{server: s, subscriptions: c.Agents.Subscriptions()}
	s.grpc.RegisterService(calls.Wrap(pb.AdminService_ServiceDesc), s.handler)
	if !c.DisableReflection {
		reflection.Register(s.grpc)
	}
	return s, nil
}

// Run serves the listeners until ctx is done, closes them, and returns when
// every goroutine of it has ended; with nil, unless a listener failed before.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) error {
	var wg sync.WaitGroup
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		wg.Go(func() { failed <- s.grpc.Serve(l) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	cut := time.AfterFunc(stopTime, s.grpc.Stop)
	s.grpc.GracefulStop()
	cut.Stop()
	wg.Wait()
	return err
}

// Service is what the listeners serve, for callers in this process. Its errors are
// those of the registry: no status is made of them, and nothing is counted.
func (s *Server) Service() pb.AdminServiceServer { return s.handler }

// handler implements badgerelayv1.AdminServiceServer.
type handler struct {
	pb.UnimplementedAdminServiceServer
	server        *Server
	subscriptions *service.Subscriptions
}

// Registry is what operators ask of the registry.
type Registry interface {
	registry.Changes
	DryRun() registry.Changes
	GetOrganization(ctx context.Context, name string) (registry.Organization, error)
	ListOrganizations(ctx context.Context, f registry.OrganizationFilter, page registry.Page) ([]registry.Organization, string, error)
	ListCredentials(ctx context.Context, org relay.OrganizationID) ([]registry.Credential, error)
	Counts(ctx context.Context) (registry.Counts, error)
}

// changes returns where a call changes something, or only tries whether it would.
func (s *handler) changes(m interface{ GetValidateOnly() bool }) registry.Changes {
	if m.GetValidateOnly() {
		return s.server.config.Registry.DryRun()
	}
	return s.server.config.Registry
}

// organization finds the organization a request names in the field.
func (s *handler) organization(ctx context.Context, field, name string) (registry.Organization, error) {
	if _, err := registry.NormalizeOrganization(name); err != nil {
		if wrong, ok := errors.AsType[*registry.InvalidError](err); ok {
			err = service.Invalid(field, wrong.Detail)
		}
		return registry.Organization{}, err
	}
	o, err := s.server.config.Registry.GetOrganization(ctx, name)
	return o, service.OfOrganization(name, err)
}
