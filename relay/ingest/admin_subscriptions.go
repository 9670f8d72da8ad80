package ingest

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"

	pb "badgerelay/proto/badgerelay/v1"
)

// Subscribe implements badgerelayv1.AdminServiceServer.
func (s *adminService) Subscribe(ctx context.Context, m *pb.AdminServiceSubscribeRequest) (*pb.AdminServiceSubscribeResponse, error) {
	o, err := s.organization(ctx, "organization", m.GetOrganization())
	if err != nil {
		return nil, err
	}
	answer, err := s.desk.subscribe(ctx, o.ID, m.GetSubscribe())
	if err != nil {
		return nil, err
	}
	return &pb.AdminServiceSubscribeResponse{Subscribe: answer}, nil
}

// Unsubscribe implements badgerelayv1.AdminServiceServer.
func (s *adminService) Unsubscribe(ctx context.Context, m *pb.AdminServiceUnsubscribeRequest) (*pb.AdminServiceUnsubscribeResponse, error) {
	o, err := s.organization(ctx, "organization", m.GetOrganization())
	if err != nil {
		return nil, err
	}
	return &pb.AdminServiceUnsubscribeResponse{}, s.desk.unsubscribe(ctx, o.ID, m.GetUnsubscribe())
}

// ListSubscriptions implements badgerelayv1.AdminServiceServer.
func (s *adminService) ListSubscriptions(ctx context.Context, m *pb.AdminServiceListSubscriptionsRequest) (*pb.AdminServiceListSubscriptionsResponse, error) {
	o, err := s.organization(ctx, "organization", m.GetOrganization())
	if err != nil {
		return nil, err
	}
	answer, err := s.desk.list(ctx, o.ID, m.GetList())
	if err != nil {
		return nil, err
	}
	return &pb.AdminServiceListSubscriptionsResponse{List: answer}, nil
}

// ImportSubscriptions implements badgerelayv1.AdminServiceServer.
func (s *adminService) ImportSubscriptions(g grpc.ClientStreamingServer[pb.AdminServiceImportSubscriptionsRequest, pb.AdminServiceImportSubscriptionsResponse]) error {
	name := ""
	imports := importer{desk: s.desk, began: time.Now()}
	for {
		m, err := g.Recv()
		if errors.Is(err, io.EOF) {
			if name != "" {
				if err := imports.flush(g.Context()); err != nil {
					return err
				}
			}
			return g.SendAndClose(&pb.AdminServiceImportSubscriptionsResponse{Import: &imports.answer})
		}
		if err != nil {
			return err
		}
		if name == "" {
			o, err := s.organization(g.Context(), "organization", m.GetOrganization())
			if err != nil {
				return err
			}
			name, imports.org = o.Name, o.ID
		}
		if !strings.EqualFold(m.GetOrganization(), name) {
			return invalid("organization", "is not the one of the messages before")
		}
		if err := imports.add(g.Context(), m.GetImport()); err != nil {
			return err
		}
	}
}
