package ingest

import (
	"context"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
)

// subscriptionService implements badgerelayv1.SubscriptionServiceServer.
type subscriptionService struct {
	pb.UnimplementedSubscriptionServiceServer
	*Server
}

// Subscribe implements badgerelayv1.SubscriptionServiceServer.
func (s *subscriptionService) Subscribe(ctx context.Context, m *pb.SubscribeRequest) (*pb.SubscribeResponse, error) {
	p, err := s.admit(ctx, 0)
	if err != nil {
		return nil, err
	}
	return s.subscriptions.Subscribe(ctx, relay.OrganizationID(p.OrganizationID), m)
}

// SetDevice implements badgerelayv1.SubscriptionServiceServer.
func (s *subscriptionService) SetDevice(ctx context.Context, m *pb.SetDeviceRequest) (*pb.SetDeviceResponse, error) {
	p, err := s.admit(ctx, 0)
	if err != nil {
		return nil, err
	}
	return s.subscriptions.SetDevice(ctx, relay.OrganizationID(p.OrganizationID), m)
}

// Unsubscribe implements badgerelayv1.SubscriptionServiceServer.
func (s *subscriptionService) Unsubscribe(ctx context.Context, m *pb.UnsubscribeRequest) (*pb.UnsubscribeResponse, error) {
	p, err := s.admit(ctx, 0)
	if err != nil {
		return nil, err
	}
	return &pb.UnsubscribeResponse{}, s.subscriptions.Unsubscribe(ctx, relay.OrganizationID(p.OrganizationID), m)
}

// ListSubscriptions implements badgerelayv1.SubscriptionServiceServer.
func (s *subscriptionService) ListSubscriptions(ctx context.Context, m *pb.ListSubscriptionsRequest) (*pb.ListSubscriptionsResponse, error) {
	p, err := s.admit(ctx, 0)
	if err != nil {
		return nil, err
	}
	return s.subscriptions.List(ctx, relay.OrganizationID(p.OrganizationID), m)
}
