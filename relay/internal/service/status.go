package service

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"badgerelay/auth"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// ToStatus turns any error into one that gRPC sends as it should be seen. It
// is the only place that does. What it does not know is a defect of ours,
// and is answered without its text.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	if r, ok := errors.AsType[*Refusal](err); ok {
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
		return Draining()
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	if _, ours := err.(interface{ GRPCStatus() *status.Status }); ours {
		return err // gRPC's own: a lost transport, an unknown method
	}
	return Refuse(codes.Internal, pb.ErrorReason_ERROR_REASON_INTERNAL, "the relay has a defect; its log says more")
}

// tokenRefusal maps the categories of auth's reasons. The text is auth's
// generic one and holds nothing of the token.
func tokenRefusal(e *auth.TokenError) *Refusal {
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
	return Refuse(code, reason, "%s", e.Error())
}

// registryRefusal maps the registry's errors; nil: it is none of them.
func registryRefusal(err error) *Refusal {
	if e, ok := errors.AsType[*registry.InvalidError](err); ok {
		return Invalid(e.Field, e.Detail)
	}
	if e, ok := errors.AsType[*registry.LimitError](err); ok {
		if e.Limit == registry.LimitApps {
			return Refuse(codes.PermissionDenied, pb.ErrorReason_ERROR_REASON_APP_NOT_ALLOWED, "the organization may not use the app")
		}
		return LimitReached(e.Limit, e.Max)
	}
	if exists, ok := errors.AsType[*registry.CredentialExistsError](err); ok { // only operators add credentials
		removed := ""
		if exists.Removed {
			removed = ", which was removed and can be restored or purged"
		}
		return Refuse(codes.AlreadyExists, pb.ErrorReason_ERROR_REASON_CREDENTIAL_EXISTS, "the key is registered already, for %s%s", exists.Organization, removed)
	}
	for _, m := range registryReasons() {
		if errors.Is(err, m.err) {
			return Refuse(m.code, m.reason, "%s", m.message)
		}
	}
	return nil
}

// OfOrganization has the registry's refusal name the organization that it is about;
// another error comes back as it is.
func OfOrganization(name string, err error) error {
	for _, m := range registryReasons() {
		if errors.Is(err, m.err) && m.named != "" {
			return Refuse(m.code, m.reason, m.named, name)
		}
	}
	return err
}

type sentinelReason struct {
	err     error
	code    codes.Code
	reason  pb.ErrorReason
	message string
	named   string // the same with the organization's name; empty: it is about none
}

func registryReasons() []sentinelReason {
	return []sentinelReason{
		{registry.ErrSubscriptionNotFound, codes.NotFound, pb.ErrorReason_ERROR_REASON_SUBSCRIPTION_NOT_FOUND, "there is no such subscription", ""},
		{registry.ErrOrganizationNotFound, codes.NotFound, pb.ErrorReason_ERROR_REASON_ORGANIZATION_NOT_FOUND, "there is no such organization", "there is no organization %s"},
		{registry.ErrOrganizationExists, codes.AlreadyExists, pb.ErrorReason_ERROR_REASON_ORGANIZATION_EXISTS, "the organization exists already", "the organization %s exists already"},
		{registry.ErrOrganizationRemoved, codes.AlreadyExists, pb.ErrorReason_ERROR_REASON_ORGANIZATION_REMOVED, "an organization of this name was removed; restore it, or purge it first",
			"an organization %s was removed; restore it, or purge it first"},
		{registry.ErrCredentialNotFound, codes.NotFound, pb.ErrorReason_ERROR_REASON_CREDENTIAL_NOT_FOUND, "there is no such credential", ""},
		{registry.ErrCredentialExists, codes.AlreadyExists, pb.ErrorReason_ERROR_REASON_CREDENTIAL_EXISTS, "the key is registered already", ""},
		{registry.ErrUnavailable, codes.Unavailable, pb.ErrorReason_ERROR_REASON_REGISTRY_UNAVAILABLE, "the registry can't be reached, or is read-only or full", ""},
	}
}
