package ingest

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// ListApps implements badgerelayv1.AdminServiceServer.
func (s *adminService) ListApps(ctx context.Context, _ *pb.ListAppsRequest) (*pb.ListAppsResponse, error) {
	return &pb.ListAppsResponse{Apps: appMessages(s.a.process(ctx).Apps)}, nil
}

// registryPatience bounds what a status asks of the registry, so that one that
// hangs is told of before the operator gives up.
const registryPatience = 3 * time.Second

// GetStatus implements badgerelayv1.AdminServiceServer.
func (s *adminService) GetStatus(ctx context.Context, _ *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	asked, cancel := context.WithTimeout(ctx, registryPatience)
	defer cancel()
	counts, err := s.a.config.Registry.Counts(asked)
	if err != nil && !unanswered(asked, err) {
		return nil, err
	}
	m := s.a.status(ctx)
	m.Organizations, m.Subscriptions, m.RegistryFailed = counts.Organizations, counts.Subscriptions, err != nil
	return m, ctx.Err()
}

// unanswered says that the registry did not answer, or not in ctx's time. Any
// other error is a defect of ours, and is not to be taken for that.
func unanswered(ctx context.Context, err error) bool {
	return errors.Is(err, registry.ErrUnavailable) || ctx.Err() != nil
}

// status is what this relay knows by itself.
func (a *Admin) status(ctx context.Context) *pb.GetStatusResponse {
	process, stats := a.process(ctx), a.config.Relay.Stats()
	return &pb.GetStatusResponse{
		Version:        process.Version,
		Instance:       process.Instance,
		StartedAt:      timeMessage(process.StartedAt),
		Ready:          process.Ready,
		NotReadyReason: process.NotReadyReason,
		Ledger:         ledgerMessage(a.config.Relay.Ledger()),
		Streams:        uint32(a.config.Server.sessions.total(sessionStream)),
		Mailboxes:      uint64(stats.Mailboxes),
		Devices:        uint64(stats.Devices),
		Apps:           appMessages(process.Apps),
	}
}

// CreateStatusKey implements badgerelayv1.AdminServiceServer.
func (s *adminService) CreateStatusKey(context.Context, *pb.CreateStatusKeyRequest) (*pb.CreateStatusKeyResponse, error) {
	if s.a.config.StatusKey == nil {
		return nil, status.Error(codes.Unimplemented, "this relay has no status page: ops.address is off")
	}
	key, end, url := s.a.config.StatusKey()
	return &pb.CreateStatusKeyResponse{Key: key, ExpiresAt: timeMessage(end), Url: url}, nil
}

// Probe implements badgerelayv1.AdminServiceServer.
func (s *adminService) Probe(ctx context.Context, m *pb.ProbeRequest) (*pb.ProbeResponse, error) {
	if s.a.config.Probe == nil {
		return nil, status.Error(codes.Unimplemented, "this relay has no probe")
	}
	if m.GetApp() != "" && !s.desk.apps.has(m.GetApp()) {
		return nil, appUnknown()
	}
	stages, err := s.a.config.Probe(ctx, m.GetApp())
	if err != nil {
		return nil, err
	}
	answer := &pb.ProbeResponse{}
	for _, stage := range stages {
		answer.Stages = append(answer.Stages, &pb.ProbeStage{
			Name: stage.Name, Ok: stage.OK, Detail: stage.Detail, Duration: durationpb.New(stage.Duration),
		})
	}
	return answer, nil
}

func (a *Admin) process(ctx context.Context) ProcessStatus {
	if a.config.Status == nil {
		return ProcessStatus{}
	}
	return a.config.Status(ctx)
}

func ledgerMessage(l relay.Ledger) *pb.Ledger {
	m := &pb.Ledger{Accepted: l.Accepted, Pending: l.Pending}
	for o, count := range l.Outcomes {
		m.Outcomes = append(m.Outcomes, &pb.OutcomeCount{Outcome: relay.Outcome(o).String(), Count: count})
	}
	return m
}

func appMessages(apps []AppStatus) []*pb.App {
	var out []*pb.App
	for _, a := range apps {
		m := &pb.App{
			Name: a.Name, Topic: a.Topic, Environment: pb.Environment_ENVIRONMENT_PRODUCTION,
			Credential: a.Credential, Engine: a.Engine,
			Connections: a.Connections, StreamsGranted: a.StreamsGranted, PushesInFlight: a.PushesInFlight,
			State: a.State, LastError: a.LastError, Quarantined: a.Quarantined,
			CertificateExpiresAt: timeMessage(a.CertificateExpiresAt),
		}
		if a.Sandbox {
			m.Environment = pb.Environment_ENVIRONMENT_SANDBOX
		}
		if a.ProviderTokenAge > 0 {
			m.ProviderTokenAge = durationpb.New(a.ProviderTokenAge)
		}
		out = append(out, m)
	}
	return out
}
