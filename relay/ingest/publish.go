package ingest

import (
	"context"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/internal/service"
)

// answerMargin is how long before its deadline a Publish answers, so that the
// answer arrives in time; a tenth of what is left where that is less.
const answerMargin = 500 * time.Millisecond

// relayService implements badgerelayv1.RelayServiceServer.
type relayService struct {
	pb.UnimplementedRelayServiceServer
	*Server
}

// Publish implements badgerelayv1.RelayServiceServer.
func (s *relayService) Publish(ctx context.Context, m *pb.PublishRequest) (*pb.PublishResponse, error) {
	p, err := s.admit(ctx, len(m.GetEvents()))
	if err != nil {
		return nil, err
	}
	if a := m.GetAgent(); a != nil {
		if err := s.products.check(a); err != nil {
			return nil, err
		}
	}
	if err := checkID("agent_id", m.GetAgentId(), maxAgentID); err != nil {
		return nil, err
	}
	if len(m.GetEvents()) == 0 {
		return nil, service.Invalid("events", "is empty")
	}
	events, tooLarge := appendEvents(make([]relay.Event, 0, min(len(m.GetEvents()), s.batchEvents)), m.GetEvents(), s.batchEvents)
	if tooLarge {
		return nil, batchTooLarge("events", s.batchEvents)
	}
	if s.isDraining() {
		return nil, service.Draining()
	}
	s.metrics.organizations.open(p)
	s.metrics.batch(p, len(events))
	ctx, cancel := s.answerBy(ctx)
	defer cancel()
	traced := s.tracer.batch(ctx, relay.OrganizationID(p.OrganizationID), events)
	outcomes, err := s.relay.Publish(ctx, relay.OrganizationID(p.OrganizationID), m.GetAgentId(), events)
	if err != nil {
		traced.end(err.Error())
		return nil, err
	}
	traced.outcomes(outcomes)
	traced.end("")
	return &pb.PublishResponse{Outcomes: outcomeMessages(outcomes)}, nil
}

// answerBy returns a context that ends when a Publish has to answer: shortly
// before its deadline, or when the relay leaves.
func (s *Server) answerBy(ctx context.Context) (context.Context, context.CancelFunc) {
	left := s.publishTimeout
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
		left -= min(answerMargin, left/10)
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	stop := context.AfterFunc(s.life, cancel)
	return ctx, func() { stop(); cancel() }
}
