package ingest

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
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/reflection"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// adminStopTime is how long calls of operators may take to end once Run stops.
const adminStopTime = 5 * time.Second

// AdminConfig says how an Admin works. Relay, Registry and Server are required.
type AdminConfig struct {
	Relay    *relay.Relay
	Registry OperatorRegistry
	// Server is the agents' server, whose streams and set of apps are asked for.
	Server *Server

	// Status tells what only the process knows. nil: nothing of it is told.
	Status func(context.Context) ProcessStatus

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

// ProcessStatus is what the process tells about itself.
type ProcessStatus struct {
	Version, Instance string
	StartedAt         time.Time
	Ready             bool
	NotReadyReason    string // for people; empty: ready
	Apps              []AppStatus
}

// AppStatus is one configured app, in the configuration's order.
type AppStatus struct {
	Name, Topic          string
	Sandbox              bool
	Credential           string // "token" or "certificate"
	Engine               string // "native" or "apns2"
	Connections          uint32
	StreamsGranted       uint32
	PushesInFlight       uint32
	State                string        // "up", "connecting", "outage", "refused", "misconfigured"
	Quarantined          uint64        // subscriptions whose device APNs refuses, and that are kept
	Refused              string        // what APNs says, with State "refused"
	RefusedSince         time.Time     // since when
	LastError            string        // for people; empty: none
	ProviderTokenAge     time.Duration // 0: none
	CertificateExpiresAt time.Time     // zero: no certificate
}

// ProbeStage is one stage of a probe.
type ProbeStage struct {
	Name     string // what was tried
	OK       bool
	Detail   string // what came back, for people
	Duration time.Duration
}

// Admin is the operators' server. It asks nobody for a token: whoever reaches its
// listener is an operator.
type Admin struct {
	config AdminConfig
	grpc   *grpc.Server
}

// NewAdmin makes an Admin that serves nothing until Run.
func NewAdmin(c AdminConfig) (*Admin, error) {
	if c.Relay == nil || c.Registry == nil || c.Server == nil {
		return nil, errors.New("configure admin: Relay, Registry or Server is missing")
	}
	if c.TLS != nil && c.TLS.ClientAuth != tls.RequireAndVerifyClientCert {
		return nil, errors.New("configure admin: TLS does not verify clients")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(c.Registerer, "admin_", methodNames(&pb.AdminService_ServiceDesc))
	if err != nil {
		return nil, fmt.Errorf("register admin metrics: %w", err)
	}
	r := rim{logger: c.Logger, metrics: m}
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(proto.Name)}),
		grpc.MaxRecvMsgSize(maxMessageSize),
		grpc.WaitForHandlers(true), // stopped means that none is left
		grpc.ChainStreamInterceptor(r.stream),
	}
	if c.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(c.TLS)))
	}
	a := &Admin{config: c, grpc: grpc.NewServer(options...)}
	a.grpc.RegisterService(r.wrap(pb.AdminService_ServiceDesc), &adminService{a: a, desk: c.Server.desk})
	if !c.DisableReflection {
		reflection.Register(a.grpc)
	}
	return a, nil
}

// Run serves the listeners until ctx is done, closes them, and returns when
// every goroutine of it has ended; with nil, unless a listener failed before.
func (a *Admin) Run(ctx context.Context, listeners ...net.Listener) error {
	var wg sync.WaitGroup
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		wg.Go(func() { failed <- a.grpc.Serve(l) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	cut := time.AfterFunc(adminStopTime, a.grpc.Stop)
	a.grpc.GracefulStop()
	cut.Stop()
	wg.Wait()
	return err
}

// adminService implements badgerelayv1.AdminServiceServer.
type adminService struct {
	pb.UnimplementedAdminServiceServer
	a    *Admin
	desk *desk
}

// organization finds the organization a request names in the field.
func (s *adminService) organization(ctx context.Context, field, name string) (registry.Organization, error) {
	if _, err := registry.NormalizeOrganization(name); err != nil {
		return registry.Organization{}, invalid(field, "is not a domain name of 1 to 253 bytes")
	}
	return s.a.config.Registry.GetOrganization(ctx, name)
}
