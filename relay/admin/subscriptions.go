package admin

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
)

// Subscribe implements badgerelayv1.AdminServiceServer.
func (s *handler) Subscribe(ctx context.Context, m *pb.AdminServiceSubscribeRequest) (*pb.AdminServiceSubscribeResponse, error) {
	o, err := s.organization(ctx, "organization", m.GetOrganization())
	if err != nil {
		return nil, err
	}
	answer, err := s.subscriptions.Subscribe(ctx, o.ID, m.GetSubscribe())
	if err != nil {
		return nil, err
	}
	return &pb.AdminServiceSubscribeResponse{Subscribe: answer}, nil
}

// Unsubscribe implements badgerelayv1.AdminServiceServer.
func (s *handler) Unsubscribe(ctx context.Context, m *pb.AdminServiceUnsubscribeRequest) (*pb.AdminServiceUnsubscribeResponse, error) {
	o, err := s.organization(ctx, "organization", m.GetOrganization())
	if err != nil {
		return nil, err
	}
	return &pb.AdminServiceUnsubscribeResponse{}, s.subscriptions.Unsubscribe(ctx, o.ID, m.GetUnsubscribe())
}

// ListSubscriptions implements badgerelayv1.AdminServiceServer.
func (s *handler) ListSubscriptions(ctx context.Context, m *pb.AdminServiceListSubscriptionsRequest) (*pb.AdminServiceListSubscriptionsResponse, error) {
	o, err := s.organization(ctx, "organization", m.GetOrganization())
	if err != nil {
		return nil, err
	}
	answer, err := s.subscriptions.List(ctx, o.ID, m.GetList())
	if err != nil {
		return nil, err
	}
	return &pb.AdminServiceListSubscriptionsResponse{List: answer}, nil
}

// ImportSubscriptions implements badgerelayv1.AdminServiceServer.
func (s *handler) ImportSubscriptions(g grpc.ClientStreamingServer[pb.AdminServiceImportSubscriptionsRequest, pb.AdminServiceImportSubscriptionsResponse]) error {
	name := ""
	var imports *service.Import
	for {
		m, err := g.Recv()
		if errors.Is(err, io.EOF) {
			answer := &pb.ImportSubscriptionsResponse{}
			if imports != nil {
				if answer, err = imports.End(g.Context()); err != nil {
					return err
				}
			}
			return g.SendAndClose(&pb.AdminServiceImportSubscriptionsResponse{Import: answer})
		}
		if err != nil {
			return err
		}
		if imports == nil {
			o, err := s.organization(g.Context(), "organization", m.GetOrganization())
			if err != nil {
				return err
			}
			name, imports = o.Name, s.subscriptions.Import(o.ID)
		}
		if !strings.EqualFold(m.GetOrganization(), name) {
			return service.Invalid("organization", "is not the one of the messages before")
		}
		if err := imports.Add(g.Context(), m.GetImport()); err != nil {
			return err
		}
	}
}
