package admin

import (
	"context"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// GetMailbox implements badgerelayv1.AdminServiceServer.
func (s *handler) GetMailbox(ctx context.Context, m *pb.AdminServiceGetMailboxRequest) (*pb.AdminServiceGetMailboxResponse, error) {
	if err := service.CheckMailbox("get.mailbox", m.GetGet().GetMailbox()); err != nil {
		return nil, err
	}
	find := func(ctx context.Context, name string) (registry.Organization, error) {
		return s.organization(ctx, "organization", name)
	}
	report, err := s.server.config.Agents.Report(ctx, find, m.GetOrganization(), m.GetGet().GetMailbox())
	if err != nil {
		return nil, err
	}
	return &pb.AdminServiceGetMailboxResponse{Report: report}, nil
}
