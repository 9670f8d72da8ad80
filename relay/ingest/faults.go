package ingest

import (
	"context"
	"errors"

	"google.golang.org/grpc"

	"badgerelay/auth"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
)

// unaryFault and streamFault stand inside of authentication, where it is known
// whose agent calls.
func (s *Server) unaryFault(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	tokenAccepted(ctx)
	answer, err := handler(ctx, req)
	s.logFault(ctx, info.FullMethod, err)
	return answer, err
}

func (s *Server) streamFault(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	tokenAccepted(ss.Context())
	err := handler(srv, ss)
	s.logFault(ss.Context(), info.FullMethod, err)
	return err
}

// logFault names the organization whose agent breaks the contract, or passes on a
// value that somebody mistyped. Nobody here can mend that, so it is no error; a
// failure that goes on is counted.
func (s *Server) logFault(ctx context.Context, method string, err error) {
	refused, ok := errors.AsType[*service.Refusal](service.ToStatus(err))
	if !ok || !agentsFault(refused.Reason) {
		return
	}
	p, ok := auth.PrincipalFrom(ctx)
	switch {
	case !ok:
	case refused.PassedOn:
		s.logger.Warn("request with an invalid field", "organization", p.Organization, "method", method,
			"field", refused.Field, "rule", refused.Rule)
	default:
		s.logger.Warn("agent breaks the contract", "organization", p.Organization, "method", method,
			"reason", service.ReasonName(refused.Reason), "error", refused)
	}
}

// agentsFault says whether only another agent, or another version of it, gets
// on. Prometheus' rules have the same list (BadgerelayAgentFaults).
func agentsFault(reason pb.ErrorReason) bool {
	switch reason {
	case pb.ErrorReason_ERROR_REASON_FIELD_INVALID, pb.ErrorReason_ERROR_REASON_HELLO_MISSING,
		pb.ErrorReason_ERROR_REASON_HELLO_REPEATED, pb.ErrorReason_ERROR_REASON_SEQUENCE_GAP,
		pb.ErrorReason_ERROR_REASON_BATCH_TOO_LARGE, pb.ErrorReason_ERROR_REASON_MESSAGE_MALFORMED,
		pb.ErrorReason_ERROR_REASON_PRODUCT_TOO_OLD:
		return true
	}
	return false
}
