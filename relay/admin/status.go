package admin

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/internal/service"
)

// ListApps implements badgerelayv1.AdminServiceServer.
func (s *handler) ListApps(ctx context.Context, _ *pb.ListAppsRequest) (*pb.ListAppsResponse, error) {
	return &pb.ListAppsResponse{Apps: s.server.process(ctx).GetApps()}, nil
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
	if err != nil {
		m.RegistryError = service.RegistryError(asked, err)
	}
	m.Organizations, m.Credentials = counts.Organizations, counts.Credentials
	m.SubscribedMailboxes, m.Subscriptions = counts.Mailboxes, counts.Subscriptions
	return m, ctx.Err()
}

// status is what this relay knows by itself.
func (s *Server) status(ctx context.Context) *pb.GetStatusResponse {
	m, stats := s.process(ctx), s.config.Relay.Stats()
	m.Ledger = ledgerMessage(s.config.Relay.Ledger())
	m.Streams = uint32(s.config.Agents.OpenStreams())
	m.Mailboxes, m.Devices = uint64(stats.Mailboxes), uint64(stats.Devices)
	m.DevicesQueued, m.DevicesWaiting = uint64(stats.Queued), uint64(stats.Waiting)
	return m
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

func (s *Server) process(ctx context.Context) *pb.GetStatusResponse {
	if s.config.Status == nil {
		return &pb.GetStatusResponse{}
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
