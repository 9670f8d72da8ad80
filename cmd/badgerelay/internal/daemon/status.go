package daemon

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"badgerelay/apns"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
)

// status is what only the process knows of the relay's status.
func (d *daemon) status(ctx context.Context) *pb.GetStatusResponse {
	reason, _ := d.notReady(ctx)
	s := &pb.GetStatusResponse{
		Version: d.version, Instance: d.instance, StartedAt: timestamp(d.started), Ready: reason == "", NotReadyReason: reason,
	}
	for _, a := range d.apps.all() {
		s.Apps = append(s.Apps, a.status(d.relay))
	}
	for _, name := range []string{"listen", "admin", "metadata"} {
		if leaf := d.certs.Leaf(name); leaf != nil {
			s.Certificates = append(s.Certificates, &pb.ListenerCertificate{Listener: name, ExpiresAt: timestamp(leaf.NotAfter)})
		}
	}
	return s
}

// status describes the app for operators.
func (a *app) status(r *relay.Relay) *pb.App {
	s, health := a.pool.Stats(), r.Health(a.name)
	m := &pb.App{
		Name: a.name, Topic: s.Topic, Environment: pb.Environment_ENVIRONMENT_PRODUCTION, Credential: "token", Engine: string(apns.EngineNative),
		Connections: uint32(s.Connections), StreamsGranted: uint32(s.StreamsGranted), PushesInFlight: uint32(s.InFlight),
		State: appState(s, health), BreakerOpenSince: timestamp(r.Breaker(a.name)), Quarantined: uint64(health.Quarantined),
		CertificateExpiresAt: timestamp(s.CertificateEnd),
	}
	if s.Environment == apns.Sandbox {
		m.Environment = pb.Environment_ENVIRONMENT_SANDBOX
	}
	if a.config.Engine != "" {
		m.Engine = a.config.Engine
	}
	if m.CertificateExpiresAt != nil {
		m.Credential = "certificate"
	}
	if s.TokenAge > 0 {
		m.ProviderTokenAge = durationpb.New(s.TokenAge)
	}
	if s.State == apns.StateRefused {
		m.Reason, m.RefusedSince = string(s.Refused), timestamp(s.RefusedSince)
	}
	if s.LastError != nil {
		m.LastError = s.LastError.Error()
	}
	return m
}

// appState names the worst of what is known.
func appState(s apns.Stats, health relay.Health) string {
	if health.Misconfigured && s.State != apns.StateRefused && s.State != apns.StateOutage {
		return "misconfigured"
	}
	return s.State.String()
}

// timestamp returns a time for a message; absent where it is zero.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// adminService is what the status page asks. While the relay starts it knows the
// process alone.
func (d *daemon) adminService() pb.AdminServiceServer {
	select {
	case <-d.serving:
		return d.admin.Service()
	default:
		return starting{daemon: d}
	}
}

// starting is the service of a relay that has none yet.
type starting struct {
	pb.UnimplementedAdminServiceServer
	daemon *daemon
}

func (s starting) GetStatus(context.Context, *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	d := s.daemon
	return &pb.GetStatusResponse{Version: d.version, Instance: d.instance, StartedAt: timestamp(d.started), NotReadyReason: "starting"}, nil
}

// statusKey returns what makes keys to the page; nil where there is none.
func (d *daemon) statusKey(listeners *listeners) func() (string, time.Time, string) {
	if listeners.ops == nil {
		return nil
	}
	return func() (string, time.Time, string) {
		key, end := d.pageKeys.Create()
		return key, end, "http://" + listeners.ops.Addr().String() + "/status"
	}
}
