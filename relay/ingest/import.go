package ingest

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// Bounds of an import; badgerelay.v1.ImportSubscriptionsRequest and -Response.
const (
	maxImport     = 10_000 // subscriptions a message
	maxRejections = 100    // refusals told

	// importAtOnce is how many subscriptions are gathered before the registry
	// gets them. Ours: what it writes in one transaction, which costs less the
	// more there is in it.
	importAtOnce = registry.ImportBatch
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
	imports := importer{desk: s.desk, org: org, began: time.Now()}
	for {
		m, err := g.Recv()
		if errors.Is(err, io.EOF) {
			if err := imports.flush(ctx); err != nil {
				return err
			}
			return g.SendAndClose(&imports.answer)
		}
		if err != nil {
			return err
		}
		if err := imports.add(ctx, m); err != nil {
			return err
		}
	}
}

// importer adds the messages of one import up.
type importer struct {
	desk   *desk
	org    relay.OrganizationID
	began  time.Time // what is registered from then on belongs together
	seen   uint64    // subscriptions so far
	answer pb.ImportSubscriptionsResponse

	valid     []registry.Registration // not registered yet
	positions []uint64                // of valid, from 1
}

// add takes what one message carries. An error ends the import; what was
// registered before stays.
func (im *importer) add(ctx context.Context, m *pb.ImportSubscriptionsRequest) error {
	subscriptions := m.GetSubscriptions()
	if len(subscriptions) > maxImport {
		return invalid("subscriptions", "holds more than 10,000")
	}
	if len(im.valid)+len(subscriptions) > importAtOnce {
		if err := im.flush(ctx); err != nil {
			return err
		}
	}
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
		r.KeepOthers, r.KeepSince = m.GetKeepOthers(), im.began
		im.valid, im.positions = append(im.valid, r), append(im.positions, im.seen)
	}
	return nil
}

// flush registers what was gathered.
func (im *importer) flush(ctx context.Context) error {
	result, err := im.desk.registry.ImportSubscriptions(ctx, im.org, im.valid)
	if err != nil {
		return err
	}
	im.answer.Created += result.Created
	im.answer.Renewed += result.Renewed
	for _, r := range result.Rejections {
		im.reject(im.positions[r.Index], r.Err)
	}
	clear(im.valid) // their strings are the messages'
	im.valid, im.positions = im.valid[:0], im.positions[:0]
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
