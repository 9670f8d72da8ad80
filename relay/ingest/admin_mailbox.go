package ingest

import (
	"context"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/registry"
)

// GetMailbox implements badgerelayv1.AdminServiceServer.
func (s *adminService) GetMailbox(ctx context.Context, m *pb.AdminServiceGetMailboxRequest) (*pb.AdminServiceGetMailboxResponse, error) {
	if _, err := registry.NormalizeOrganization(m.GetOrganization()); err != nil {
		return nil, invalid("organization", "is not a domain name of 1 to 253 bytes")
	}
	if err := checkMailbox("get.mailbox", m.GetGet().GetMailbox()); err != nil {
		return nil, err
	}
	reporter := s.a.config.Server.reporter
	o, err := reporter.organizationNamed(ctx, s.a.config.Registry.GetOrganization, m.GetOrganization())
	if err != nil {
		return nil, err
	}
	report, err := reporter.report(ctx, o, m.GetGet().GetMailbox(), false)
	return &pb.AdminServiceGetMailboxResponse{Report: report}, err
}
