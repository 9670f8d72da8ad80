package service

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// Bounds of an import; badgerelay.v1.ImportSubscriptionsRequest and -Response.
const (
	MaxImport     = 10_000 // subscriptions a message
	MaxRejections = 100    // refusals told

	// importAtOnce is how many subscriptions are gathered before the registry
	// gets them. Ours: what it writes in one transaction, which costs less the
	// more there is in it.
	importAtOnce = registry.ImportBatch
)

// Import adds the messages of one import up.
type Import struct {
	subscriptions *Subscriptions
	org           relay.OrganizationID
	began         time.Time // what is registered from then on belongs together
	changes       changes   // the registry, or its dry run; nil: no message came yet
	validateOnly  bool      // as the first message says
	seen          uint64    // subscriptions so far
	answer        pb.ImportSubscriptionsResponse

	valid     []registry.Registration // not registered yet
	positions []uint64                // of valid, from 1
}

// Import begins an import into an organization.
func (s *Subscriptions) Import(org relay.OrganizationID) *Import {
	return &Import{subscriptions: s, org: org, began: time.Now()}
}

// Add takes what one message carries. An error ends the import; what was
// registered before stays.
func (im *Import) Add(ctx context.Context, m *pb.ImportSubscriptionsRequest) error {
	subscriptions := m.GetSubscriptions()
	if len(subscriptions) > MaxImport {
		return Invalid("subscriptions", "holds more than 10,000")
	}
	if im.changes == nil {
		im.changes, im.validateOnly = im.subscriptions.changes(m), m.GetValidateOnly()
	}
	if m.GetValidateOnly() != im.validateOnly {
		return Invalid("validate_only", "is not as in the messages before")
	}
	if len(im.valid)+len(subscriptions) > importAtOnce {
		if err := im.flush(ctx); err != nil {
			return err
		}
	}
	for _, s := range subscriptions {
		im.seen++
		r, err := im.subscriptions.registration(s)
		if err == nil && !im.subscriptions.Apps.Has(r.App) {
			err = AppUnknown(r.App)
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

// End registers what is left, and returns the answer.
func (im *Import) End(ctx context.Context) (*pb.ImportSubscriptionsResponse, error) {
	err := im.flush(ctx)
	slices.SortFunc(im.answer.Rejections, func(a, b *pb.ImportRejection) int { return cmp.Compare(a.GetPosition(), b.GetPosition()) })
	return &im.answer, err
}

// flush registers what was gathered.
func (im *Import) flush(ctx context.Context) error {
	if im.changes == nil {
		return nil
	}
	result, err := im.changes.ImportSubscriptions(ctx, im.org, im.valid)
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

func (im *Import) reject(position uint64, err error) {
	im.answer.Rejected++
	if len(im.answer.Rejections) >= MaxRejections {
		return
	}
	rejection := &pb.ImportRejection{Position: position, Detail: "is refused"}
	if r, ok := errors.AsType[*Refusal](ToStatus(err)); ok {
		rejection.Field, rejection.Detail = r.Field, r.Message
		if r.Rule != "" {
			rejection.Detail = r.Rule
		}
	}
	im.answer.Rejections = append(im.answer.Rejections, rejection)
}
