package ingest

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// Bounds of an import; badgerelay.v1.ImportSubscriptionsRequest and -Response.
const (
	maxImport     = 10_000 // subscriptions a message
	maxRejections = 100    // refusals told
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
	return s.attend(g.Context(), attendance{session, p.ExpiresAt, s.leaving}, func(ctx context.Context) error {
		return s.importAll(ctx, session.org, g)
	})
}

// importAll takes messages until the agent closes its side, and answers.
func (s *subscriptionService) importAll(ctx context.Context, org relay.OrganizationID, g grpc.ClientStreamingServer[pb.ImportSubscriptionsRequest, pb.ImportSubscriptionsResponse]) error {
	imports := importer{desk: s.desk, org: org}
	for {
		m, err := g.Recv()
		if errors.Is(err, io.EOF) {
			return g.SendAndClose(&imports.answer)
		}
		if err != nil {
			return err
		}
		if err := imports.add(ctx, m.GetSubscriptions()); err != nil {
			return err
		}
	}
}

// importer adds the messages of one import up.
type importer struct {
	desk   *desk
	org    relay.OrganizationID
	seen   uint64 // subscriptions so far
	answer pb.ImportSubscriptionsResponse
}

// add registers what one message carries. An error ends the import; what was
// registered before stays.
func (im *importer) add(ctx context.Context, subscriptions []*pb.Subscription) error {
	if len(subscriptions) > maxImport {
		return invalid("subscriptions", "holds more than 10,000")
	}
	valid := make([]registry.Registration, 0, len(subscriptions))
	positions := make([]uint64, 0, len(subscriptions))
	for _, s := range subscriptions {
		im.seen++
		r, err := im.desk.registration(s)
		if err == nil && !im.desk.apps.has(r.App) {
			err = appUnknown()
		}
		if err != nil {
			im.reject(im.seen, err)
			continue
		}
		valid, positions = append(valid, r), append(positions, im.seen)
	}
	result, err := im.desk.registry.ImportSubscriptions(ctx, im.org, valid)
	if err != nil {
		return err
	}
	im.answer.Created += result.Created
	im.answer.Renewed += result.Renewed
	for _, r := range result.Rejections {
		im.reject(positions[r.Index], r.Err)
	}
	return nil
}

func (im *importer) reject(position uint64, err error) {
	im.answer.Rejected++
	if len(im.answer.Rejections) >= maxRejections {
		return
	}
	rejection := &pb.ImportRejection{Position: position, Detail: "is refused"}
	if r, ok := errors.AsType[*refusal](toStatus(err)); ok {
		rejection.Field, rejection.Detail = r.field, r.message
		if r.rule != "" {
			rejection.Detail = r.rule
		}
	}
	im.answer.Rejections = append(im.answer.Rejections, rejection)
}
