package admin

import (
	"context"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// GetMailbox implements badgerelayv1.AdminServiceServer.
func (s *handler) GetMailbox(ctx context.Context, m *pb.AdminServiceGetMailboxRequest) (*pb.AdminServiceGetMailboxResponse, error) {
	if _, err := registry.NormalizeOrganization(m.GetOrganization()); err != nil {
		return nil, service.Invalid("organization", "is not a domain name of 1 to 253 bytes")
	}
	if err := service.CheckMailbox("get.mailbox", m.GetGet().GetMailbox()); err != nil {
		return nil, err
	}
	report, err := s.server.config.Agents.Report(ctx, s.server.config.Registry.GetOrganization, m.GetOrganization(), m.GetGet().GetMailbox())
	if err != nil {
		return nil, err
	}
	return &pb.AdminServiceGetMailboxResponse{Report: report}, nil
}
