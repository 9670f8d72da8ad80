package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	grpckeepalive "google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"badgerelay/auth"
	"badgerelay/auth/authgrpc"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// Server is what agents talk to. New makes one; Run serves until its context
// ends or Drain has ended. All methods are safe for concurrent use.
type Server struct {
	relay         *relay.Relay
	registry      AgentRegistry
	validator     *auth.Validator
	logger        *slog.Logger
	grpc          *grpc.Server
	health        *health.Server
	metrics       *metrics
	products      products
	quotas        *quotas
	sessions      *sessions
	agents        *agents
	limiter       *connLimiter
	transport     *transport
	watchers      *watchers
	subscriptions *service.Subscriptions
	tracer        *tracer
	reporter      *reporter

	peers             Peers // nil: there are none
	version, instance string
	window            time.Duration
	batchEvents       int
	helloTimeout      time.Duration
	publishTimeout    time.Duration
	drainGrace        time.Duration
	drainTimeout      time.Duration

	unlisten   func()         // ends the listening to the registry's changes
	background sync.WaitGroup // goroutines of streams, which may outlive their handlers for a moment

	drainBegun   atomic.Bool
	drainContext context.Context    // ends when Drain begins; stored because calls end with it
	beginDrain   context.CancelFunc // ends drainContext
	draining     <-chan struct{}    // drainContext.Done
	drained      chan struct{}      // closed when Drain has ended
	life         context.Context    // ends when the grace is over; stored because calls end with it
	leave        context.CancelFunc // ends life
	leaving      <-chan struct{}    // life.Done
}

// New makes a Server that serves nothing until Run. It listens to the
// registry's changes at once; without Run, Drain ends that. It returns what
// Config.Validate does, and errors of registering metrics.
func New(c Config) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure ingest: %w", err)
	}
	minimums, err := newProducts(c.MinimumVersions)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(c.Registerer, service.MethodNames(&pb.RelayService_ServiceDesc, &pb.SubscriptionService_ServiceDesc))
	if err != nil {
		return nil, fmt.Errorf("register ingest metrics: %w", err)
	}
	limiter, err := newConnLimiter(&c)
	if err != nil {
		return nil, fmt.Errorf("register ingest metrics: %w", err)
	}
	transport, err := newTransport(&c, limiter.refused[refusedHandshake])
	if err != nil {
		return nil, fmt.Errorf("register ingest metrics: %w", err)
	}
	drainContext, beginDrain := context.WithCancel(context.Background())
	life, leave := context.WithCancel(context.Background())
	s := &Server{
		relay: c.Relay, registry: c.Registry, validator: c.Validator,
		logger: c.logger(), metrics: m, products: minimums,
		quotas: newQuotas(&c), sessions: newSessions(&c, m), limiter: limiter, transport: transport,
		watchers:      &watchers{orgs: map[relay.OrganizationID]map[*watcher]struct{}{}},
		subscriptions: &service.Subscriptions{Relay: c.Relay, Registry: c.Registry}, tracer: newTracer(&c), peers: c.Peers,
		version: c.Version, instance: c.Instance, window: c.CoalescingWindow,
		batchEvents: c.batchEvents(), helloTimeout: c.helloTimeout(), publishTimeout: c.publishTimeout(),
		drainGrace: c.drainGrace(), drainTimeout: c.drainTimeout(),
		drained: make(chan struct{}), drainContext: drainContext, beginDrain: beginDrain, draining: drainContext.Done(),
		life: life, leave: leave, leaving: life.Done(),
	}
	if c.OrganizationMetrics {
		m.organizations = newOrganizationMetrics(s.sessions)
		if c.Registerer != nil {
			if err := c.Registerer.Register(m.organizations); err != nil {
				return nil, fmt.Errorf("register metrics by organization: %w", err)
			}
		}
	}
	s.agents = newAgents(&c, s.isDraining)
	s.reporter = newReporter(s, c.Reports)
	s.SetApps(c.Apps)
	calls := &service.Calls{Logger: s.logger, Metrics: m.Metrics, Unreadable: transport.unreadable}
	s.grpc = grpc.NewServer(s.options(&c, calls)...)
	s.register(&c, calls)
	s.listen()
	return s, nil
}

// listen begins to hear what other processes change.
func (s *Server) listen() {
	unlisten := s.registry.OnChange(s.registryChanged)
	s.unlisten = unlisten
	if s.peers == nil {
		return
	}
	unhear := s.peers.OnStreamChanged(s.agents.heard)
	deafen := s.reporter.listen()
	s.unlisten = func() { deafen(); unhear(); unlisten() }
}

// options returns how gRPC is to serve.
func (s *Server) options(c *Config, calls *service.Calls) []grpc.ServerOption {
	skip := func(fullMethod string) bool { return !service.Ours(fullMethod) }
	asIs := func(err error) error { return err } // calls.Wrap is around it
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(service.NewCodec()),
		grpc.Creds(s.transport), grpc.UnknownServiceHandler(s.transport.unknownMethod),
		grpc.MaxRecvMsgSize(service.MaxMessageSize),
		grpc.WaitForHandlers(true), // stopped means that none is left
		// Windows that do not grow by themselves to 16 MiB: a fast agent is
		// slowed, and memory stays bounded. At 50 ms of round trip this is still
		// half a million events a second.
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(2 * streamWindow),
		grpc.ReadBufferSize(0), // TLS has a buffer already; one of gRPC's would take 32 KB of each connection
		grpc.MaxConcurrentStreams(c.concurrentStreams()),
		grpc.MaxHeaderListSize(32 << 10), // a token has 8 KiB
		grpc.ConnectionTimeout(connectTime),
		// Agents ping through NATs that forget a connection within a minute.
		grpc.KeepaliveEnforcementPolicy(grpckeepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(grpckeepalive.ServerParameters{MaxConnectionIdle: idleTimeout, Time: math.MaxInt64}), // transportConn asks whether a peer is there
		grpc.ChainUnaryInterceptor(s.publicUnary, authgrpc.UnaryInterceptor(s.validator, asIs, skip), s.unaryFault),
		grpc.ChainStreamInterceptor(s.publicStream, calls.Stream, checkedApart(authgrpc.StreamInterceptor(s.validator, asIs, skip)), s.streamFault),
	}
	if c.TracerProvider != nil {
		options = append(options, grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithTracerProvider(c.TracerProvider), otelgrpc.WithPropagators(propagator))))
	}
	return options
}

// register adds the services.
func (s *Server) register(c *Config, calls *service.Calls) {
	s.grpc.RegisterService(calls.Wrap(pb.RelayService_ServiceDesc), &relayService{Server: s})
	s.grpc.RegisterService(calls.Wrap(pb.SubscriptionService_ServiceDesc), &subscriptionService{Server: s})
	s.health = health.NewServer()
	s.grpc.RegisterService(service.AuthBeforeDecode(grpc_health_v1.Health_ServiceDesc, func(decode func(any) error, m any) error { return decode(m) },
		func(_ string, err error) error { return err }), s.health)
	s.SetReady(false)
	if !c.DisableReflection {
		reflection.Register(s.grpc)
	}
}

// SetReady says what the health service answers, for the whole server and for
// each of its services. It is not ready until told.
func (s *Server) SetReady(ready bool) {
	status := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if ready {
		status = grpc_health_v1.HealthCheckResponse_SERVING
	}
	for _, service := range []string{"", pb.RelayService_ServiceDesc.ServiceName, pb.SubscriptionService_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(service, status)
	}
}

// SetApps replaces the set of apps that subscriptions may name.
func (s *Server) SetApps(names []string) { s.subscriptions.Apps.Set(names) }

// SetLimits replaces MaxStreams, MaxOrganizationStreams, MaxConnections,
// MaxAddressConnections, CallsPerSecond and PublishEventsPerSecond by those of
// c; nothing else of c is read. What is open
// beyond a lower limit stays open.
func (s *Server) SetLimits(c Config) {
	c.MaxBatchEvents = s.batchEvents // told to agents, so it stays for the process's life
	s.sessions.set(&c)
	s.limiter.set(&c)
	s.quotas.set(&c)
}

// Subscriptions makes and ends subscriptions; whoever calls has the right to.
func (s *Server) Subscriptions() *service.Subscriptions { return s.subscriptions }

// OpenStreams returns how many agent streams are open here.
func (s *Server) OpenStreams() int { return s.sessions.total(sessionStream) }

// Streams returns how many agent streams an organization has open here.
func (s *Server) Streams(org relay.OrganizationID) int { return s.sessions.count(org, sessionStream) }

// registryChanged ends what lost its right and tells watchers what is new.
func (s *Server) registryChanged(changes []registry.Change) {
	for i := range changes {
		c := &changes[i]
		s.sessions.changed(c)
		s.watchers.changed(c)
		if c.Kind == registry.ChangeOrganizationRemoved {
			s.quotas.forget(c.Organization)
			s.metrics.organizations.forget(c.Organization)
			s.agents.forgetDeparture(c.Organization)
		}
	}
}

// Run serves the listeners until Drain has ended, or until ctx is done: then
// it drains first. It closes the listeners, and returns when every goroutine
// of the server has ended; with nil, unless a listener failed before.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) error {
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		s.background.Go(func() { failed <- s.grpc.Serve(s.limiter.limit(l)) })
	}
	if s.peers != nil {
		s.background.Go(func() { s.agents.run(s.life) })
	}
	var err error
	select {
	case <-ctx.Done():
	case <-s.draining:
	case err = <-failed:
		if s.isDraining() {
			err = nil
		}
	}
	budget, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.drainTimeout)
	defer cancel()
	s.Drain(budget)
	s.background.Wait()
	return err
}
