package ingest

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
)

// ImportSubscriptions implements badgerelayv1.SubscriptionServiceServer.
func (s *subscriptionService) ImportSubscriptions(g grpc.ClientStreamingServer[pb.ImportSubscriptionsRequest, pb.ImportSubscriptionsResponse]) error {
	p, err := caller(g.Context())
	if err != nil {
		return err
	}
	session, err := s.openSession(g.Context(), sessionImport, p)
	if err != nil {
		return err
	}
	defer s.sessions.remove(session)
	return s.runSession(g.Context(), sessionEnds{session, p.GoodUntil, s.leaving}, func(ctx context.Context) error {
		return s.importAll(ctx, session.org, g)
	})
}

// importAll takes messages until the agent closes its side, and answers.
func (s *subscriptionService) importAll(ctx context.Context, org relay.OrganizationID, g grpc.ClientStreamingServer[pb.ImportSubscriptionsRequest, pb.ImportSubscriptionsResponse]) error {
	imports := s.subscriptions.Import(org)
	for {
		m, err := g.Recv()
		if errors.Is(err, io.EOF) {
			answer, err := imports.End(ctx)
			if err != nil {
				return err
			}
			return g.SendAndClose(answer)
		}
		if err != nil {
			return err
		}
		if err := imports.Add(ctx, m); err != nil {
			return err
		}
	}
}
