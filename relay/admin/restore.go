package admin

import (
	"errors"
	"unicode/utf8"

	"google.golang.org/grpc"

	"badgerelay/apns"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

// maxReasonSize is beyond every reason that APNs has for an answer; ours.
const maxReasonSize = 256

// RestoreSubscriptions implements badgerelayv1.AdminServiceServer.
func (s *handler) RestoreSubscriptions(m *pb.RestoreSubscriptionsRequest, g grpc.ServerStreamingServer[pb.RestoreSubscriptionsResponse]) error {
	r, err := restoreRequest(m)
	if err != nil {
		return err
	}
	if m.GetOrganization() != "" {
		o, err := s.organization(g.Context(), "organization", m.GetOrganization())
		if err != nil {
			return err
		}
		r.Organization = o.ID
	}
	var restored, kept int
	err = s.changes(m).Restore(g.Context(), r, func(part []registry.Restoration) error {
		answer := &pb.RestoreSubscriptionsResponse{}
		for i := range part {
			one := restorationMessage(&part[i])
			if one.GetOutcome() == pb.RestorationOutcome_RESTORATION_OUTCOME_RESTORED {
				restored++
			} else {
				kept++
			}
			answer.Restorations = append(answer.Restorations, one)
		}
		return g.Send(answer)
	})
	if !m.GetValidateOnly() && restored > 0 {
		s.server.config.Logger.Info("subscriptions restored", "restored", restored, "not_restored", kept,
			"organization", m.GetOrganization(), "app", r.App, "reason", string(r.Reason))
	}
	return err
}

// restoreRequest takes a request without its organization.
func restoreRequest(m *pb.RestoreSubscriptionsRequest) (r registry.RestoreRequest, err error) {
	r = registry.RestoreRequest{Mailbox: m.GetMailbox(), App: m.GetApp(), Reason: apns.Reason(m.GetReason())}
	if r.Mailbox != "" {
		if err := service.CheckMailbox("mailbox", r.Mailbox); err != nil {
			return r, err
		}
	}
	if r.App != "" {
		if err := service.CheckApp(r.App); err != nil {
			return r, err
		}
	}
	if len(r.Reason) > maxReasonSize || !utf8.ValidString(string(r.Reason)) {
		return r, service.Invalid("reason", "is not 0 to 256 bytes of UTF-8")
	}
	if r.From, err = timeOf("removed_from", m.GetRemovedFrom()); err != nil {
		return r, err
	}
	if r.Until, err = timeOf("removed_until", m.GetRemovedUntil()); err != nil {
		return r, err
	}
	if !r.From.IsZero() && !r.Until.IsZero() && !r.From.Before(r.Until) {
		return r, service.Invalid("removed_until", "is not after the time from which they ended")
	}
	return r, nil
}

func restorationMessage(r *registry.Restoration) *pb.Restoration {
	m := &pb.Restoration{Organization: r.OrganizationName, Subscription: service.Subscription(&r.Subscription),
		Outcome: pb.RestorationOutcome_RESTORATION_OUTCOME_RESTORED}
	switch limit, limited := errors.AsType[*registry.LimitError](r.Err); {
	case limited:
		m.Outcome, m.Detail = pb.RestorationOutcome_RESTORATION_OUTCOME_LIMIT_REACHED, limit.Error()
	case r.Err != nil: // ErrSuperseded
		m.Outcome = pb.RestorationOutcome_RESTORATION_OUTCOME_SUPERSEDED
	}
	return m
}
