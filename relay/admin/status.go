package admin

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/ingest"
	"badgerelay/relay/internal/service"
)

// ListApps implements badgerelayv1.AdminServiceServer.
func (s *handler) ListApps(ctx context.Context, _ *pb.ListAppsRequest) (*pb.ListAppsResponse, error) {
	return &pb.ListAppsResponse{Apps: appMessages(s.server.process(ctx).Apps)}, nil
}

// GetStatus implements badgerelayv1.AdminServiceServer.
func (s *handler) GetStatus(ctx context.Context, _ *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	asked, cancel := context.WithTimeout(ctx, service.RegistryTimeout)
	defer cancel()
	counts, err := s.server.config.Registry.Counts(asked)
	if err != nil && !service.Unanswered(asked, err) {
		return nil, err
	}
	m := s.server.status(ctx)
	m.Organizations, m.Subscriptions, m.RegistryFailed = counts.Organizations, counts.Subscriptions, err != nil
	return m, ctx.Err()
}

// status is what this relay knows by itself.
func (s *Server) status(ctx context.Context) *pb.GetStatusResponse {
	process, stats := s.process(ctx), s.config.Relay.Stats()
	return &pb.GetStatusResponse{
		Version:        process.Version,
		Instance:       process.Instance,
		StartedAt:      service.Time(process.StartedAt),
		Ready:          process.Ready,
		NotReadyReason: process.NotReadyReason,
		Ledger:         ledgerMessage(s.config.Relay.Ledger()),
		Streams:        uint32(s.config.Agents.OpenStreams()),
		Mailboxes:      uint64(stats.Mailboxes),
		Devices:        uint64(stats.Devices),
		Apps:           appMessages(process.Apps),
	}
}

// CreateStatusKey implements badgerelayv1.AdminServiceServer.
func (s *handler) CreateStatusKey(context.Context, *pb.CreateStatusKeyRequest) (*pb.CreateStatusKeyResponse, error) {
	if s.server.config.StatusKey == nil {
		return nil, status.Error(codes.Unimplemented, "this relay has no status page: ops.address is off")
	}
	key, end, url := s.server.config.StatusKey()
	return &pb.CreateStatusKeyResponse{Key: key, ExpiresAt: service.Time(end), Url: url}, nil
}

// Probe implements badgerelayv1.AdminServiceServer.
func (s *handler) Probe(ctx context.Context, m *pb.ProbeRequest) (*pb.ProbeResponse, error) {
	if s.server.config.Probe == nil {
		return nil, status.Error(codes.Unimplemented, "this relay has no probe")
	}
	if m.GetApp() != "" && !s.subscriptions.Apps.Has(m.GetApp()) {
		return nil, service.AppUnknown(m.GetApp())
	}
	stages, err := s.server.config.Probe(ctx, m.GetApp())
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

func (s *Server) process(ctx context.Context) ingest.ProcessStatus {
	if s.config.Status == nil {
		return ingest.ProcessStatus{}
	}
	return s.config.Status(ctx)
}

func ledgerMessage(l relay.Ledger) *pb.Ledger {
	m := &pb.Ledger{Accepted: l.Accepted, Pending: l.Pending}
	for o, count := range l.Outcomes {
		m.Outcomes = append(m.Outcomes, &pb.OutcomeCount{Outcome: relay.Outcome(o).String(), Count: count})
	}
	return m
}

func appMessages(apps []ingest.AppStatus) []*pb.App {
	var out []*pb.App
	for _, a := range apps {
		m := &pb.App{
			Name: a.Name, Topic: a.Topic, Environment: pb.Environment_ENVIRONMENT_PRODUCTION,
			Credential: a.Credential, Engine: a.Engine,
			Connections: a.Connections, StreamsGranted: a.StreamsGranted, PushesInFlight: a.PushesInFlight,
			State: a.State, LastError: a.LastError, Quarantined: a.Quarantined,
			CertificateExpiresAt: service.Time(a.CertificateExpiresAt),
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
