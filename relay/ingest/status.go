package ingest

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"badgerelay/auth"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// rim is where errors become what callers see, and calls are counted.
type rim struct {
	logger    *slog.Logger
	metrics   *metrics
	transport *transport // nil at the operators' door, where it is not counted
}

// finish turns the error a method ended with into a status, counts both, and
// logs what is a defect of ours, once.
func (r *rim) finish(method string, err error) error {
	out := toStatus(err)
	if t, ok := errors.AsType[*auth.TokenError](err); ok {
		r.logToken(method, t)
	}
	var refused *refusal
	if errors.As(out, &refused) {
		r.metrics.refused(refused.reason)
		if refused.reason == pb.ErrorReason_ERROR_REASON_INTERNAL {
			r.logger.Error("call failed", "method", method, "error", err)
		}
	}
	r.metrics.call(method, status.Code(out))
	return out
}

// logToken notes a refused token. Anybody can send tokens that no registered
// key signed, as many as they like: those are for debugging only.
func (r *rim) logToken(method string, t *auth.TokenError) {
	level := slog.LevelDebug
	if t.Organization != "" {
		level = slog.LevelInfo
	}
	r.logger.Log(context.Background(), level, "token refused", "method", method, "token", t)
}

// logFault names the organization whose agent breaks the contract, or passes on a
// value that somebody mistyped. Nobody here can mend that, so it is no error; a
// failure that goes on is counted.
func (r *rim) logFault(ctx context.Context, method string, err error) {
	refused, ok := errors.AsType[*refusal](toStatus(err))
	if !ok || !agentsFault(refused.reason) {
		return
	}
	p, ok := auth.PrincipalFrom(ctx)
	switch {
	case !ok:
	case refused.passedOn:
		r.logger.Warn("request with an invalid field", "organization", p.Organization, "method", method,
			"field", refused.field, "rule", refused.rule)
	default:
		r.logger.Warn("agent breaks the contract", "organization", p.Organization, "method", method,
			"reason", reasonName(refused.reason), "error", refused)
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

// toStatus turns any error into one that gRPC sends as it should be seen. It
// is the only place that does. What it does not know is a defect of ours,
// and is answered without its text.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	if t, ok := errors.AsType[*auth.TokenError](err); ok {
		return tokenRefusal(t)
	}
	if r := registryRefusal(err); r != nil {
		return r
	}
	switch {
	case errors.Is(err, relay.ErrDraining):
		return draining()
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	if _, ours := err.(interface{ GRPCStatus() *status.Status }); ours {
		return err // gRPC's own: a lost transport, an unknown method
	}
	return refuse(codes.Internal, pb.ErrorReason_ERROR_REASON_INTERNAL, "the relay has a defect; its log says more")
}

// tokenRefusal maps the categories of auth's reasons. The text is auth's
// generic one and holds nothing of the token.
func tokenRefusal(e *auth.TokenError) *refusal {
	code, reason := codes.Unauthenticated, pb.ErrorReason_ERROR_REASON_TOKEN_MALFORMED
	switch e.Reason.Category() {
	case auth.ReasonMissing:
		reason = pb.ErrorReason_ERROR_REASON_TOKEN_MISSING
	case auth.ReasonKind:
		reason = pb.ErrorReason_ERROR_REASON_TOKEN_KIND
	case auth.ReasonExpired:
		reason = pb.ErrorReason_ERROR_REASON_TOKEN_EXPIRED
	case auth.ReasonNotYetValid:
		reason = pb.ErrorReason_ERROR_REASON_TOKEN_NOT_YET_VALID
	case auth.ReasonAudience:
		reason = pb.ErrorReason_ERROR_REASON_TOKEN_AUDIENCE
	case auth.ReasonKeyUnknown:
		reason = pb.ErrorReason_ERROR_REASON_TOKEN_KEY_UNKNOWN
	case auth.ReasonSignature:
		reason = pb.ErrorReason_ERROR_REASON_TOKEN_SIGNATURE
	case auth.ReasonRealm:
		reason = pb.ErrorReason_ERROR_REASON_TOKEN_REALM
	case auth.ReasonOrganizationDisabled:
		code, reason = codes.PermissionDenied, pb.ErrorReason_ERROR_REASON_ORGANIZATION_DISABLED
	}
	return refuse(code, reason, "%s", e.Error())
}

// registryRefusal maps the registry's errors; nil: it is none of them.
func registryRefusal(err error) *refusal {
	if e, ok := errors.AsType[*registry.InvalidError](err); ok {
		return invalid(e.Field, e.Detail)
	}
	if e, ok := errors.AsType[*registry.LimitError](err); ok {
		if e.Limit == registry.LimitApps {
			return refuse(codes.PermissionDenied, pb.ErrorReason_ERROR_REASON_APP_NOT_ALLOWED, "the organization may not use the app")
		}
		return limitReached(e.Limit, e.Max)
	}
	if exists, ok := errors.AsType[*registry.CredentialExistsError](err); ok { // only operators add credentials
		removed := ""
		if exists.Removed {
			removed = ", which was removed and can be restored or purged"
		}
		return refuse(codes.AlreadyExists, pb.ErrorReason_ERROR_REASON_CREDENTIAL_EXISTS, "the key is registered already, for %s%s", exists.Organization, removed)
	}
	for _, m := range registryReasons() {
		if errors.Is(err, m.err) {
			return refuse(m.code, m.reason, "%s", m.message)
		}
	}
	return nil
}

type sentinelReason struct {
	err     error
	code    codes.Code
	reason  pb.ErrorReason
	message string
}

func registryReasons() []sentinelReason {
	return []sentinelReason{
		{registry.ErrSubscriptionNotFound, codes.NotFound, pb.ErrorReason_ERROR_REASON_SUBSCRIPTION_NOT_FOUND, "there is no such subscription"},
		{registry.ErrOrganizationNotFound, codes.NotFound, pb.ErrorReason_ERROR_REASON_ORGANIZATION_NOT_FOUND, "there is no such organization"},
		{registry.ErrOrganizationExists, codes.AlreadyExists, pb.ErrorReason_ERROR_REASON_ORGANIZATION_EXISTS, "the organization exists already"},
		{registry.ErrOrganizationRemoved, codes.AlreadyExists, pb.ErrorReason_ERROR_REASON_ORGANIZATION_REMOVED, "an organization of this name was removed; restore it, or purge it first"},
		{registry.ErrCredentialNotFound, codes.NotFound, pb.ErrorReason_ERROR_REASON_CREDENTIAL_NOT_FOUND, "there is no such credential"},
		{registry.ErrCredentialExists, codes.AlreadyExists, pb.ErrorReason_ERROR_REASON_CREDENTIAL_EXISTS, "the key is registered already"},
		{registry.ErrUnavailable, codes.Unavailable, pb.ErrorReason_ERROR_REASON_REGISTRY_UNAVAILABLE, "the registry can't be reached, or is read-only or full"},
	}
}
