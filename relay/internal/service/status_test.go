package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"badgerelay/auth"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/internal/service/servicetest"
	"badgerelay/relay/registry"
)

func TestEveryTokenReasonHasAStatus(t *testing.T) {
	categories := map[auth.Reason]string{
		auth.ReasonMissing: "TOKEN_MISSING", auth.ReasonMalformed: "TOKEN_MALFORMED", auth.ReasonKind: "TOKEN_KIND",
		auth.ReasonExpired: "TOKEN_EXPIRED", auth.ReasonNotYetValid: "TOKEN_NOT_YET_VALID",
		auth.ReasonAudience: "TOKEN_AUDIENCE", auth.ReasonKeyUnknown: "TOKEN_KEY_UNKNOWN",
		auth.ReasonSignature: "TOKEN_SIGNATURE", auth.ReasonRealm: "TOKEN_REALM",
		auth.ReasonOrganizationDisabled: "ORGANIZATION_DISABLED",
	}
	for _, reason := range auth.Reasons() {
		want, known := categories[reason.Category()]
		if !known {
			t.Errorf("reason %v is of a category that has no status of its own", reason)
		}
		err := ToStatus(fmt.Errorf("open: %w", &auth.TokenError{Reason: reason}))
		info := servicetest.Info(err)
		if info.GetReason() != want || info.GetDomain() != "badgerelay" {
			t.Errorf("%v: got %v, want %v", reason, info, want)
		}
		code := codes.Unauthenticated
		if reason == auth.ReasonOrganizationDisabled {
			code = codes.PermissionDenied
		}
		if got := status.Code(err); got != code {
			t.Errorf("%v: got code %v, want %v", reason, got, code)
		}
	}
}

func TestErrorsToStatus(t *testing.T) {
	for _, test := range []struct {
		err    error
		code   codes.Code
		reason string
	}{
		{registry.ErrOrganizationNotFound, codes.NotFound, "ORGANIZATION_NOT_FOUND"},
		{registry.ErrOrganizationExists, codes.AlreadyExists, "ORGANIZATION_EXISTS"},
		{registry.ErrOrganizationRemoved, codes.AlreadyExists, "ORGANIZATION_REMOVED"},
		{registry.ErrCredentialNotFound, codes.NotFound, "CREDENTIAL_NOT_FOUND"},
		{registry.ErrCredentialExists, codes.AlreadyExists, "CREDENTIAL_EXISTS"},
		{registry.ErrSubscriptionNotFound, codes.NotFound, "SUBSCRIPTION_NOT_FOUND"},
		{registry.ErrUnavailable, codes.Unavailable, "REGISTRY_UNAVAILABLE"},
		{registry.ErrNewerSchema, codes.Internal, "INTERNAL"},
		{&registry.LimitError{Limit: registry.LimitApps, App: "a"}, codes.PermissionDenied, "APP_NOT_ALLOWED"},
		{&registry.LimitError{Limit: registry.LimitMailboxes, Max: 3}, codes.ResourceExhausted, "LIMIT_REACHED"},
		{&registry.InvalidError{Field: "metadata_url", Detail: "is not https"}, codes.InvalidArgument, "FIELD_INVALID"},
		{relay.ErrDraining, codes.Unavailable, "DRAINING"},
		{Malformed(), codes.InvalidArgument, "MESSAGE_MALFORMED"},
		{errors.New("secret of the inside"), codes.Internal, "INTERNAL"},
	} {
		err := ToStatus(fmt.Errorf("wrapped: %w", test.err))
		if got := status.Code(err); got != test.code {
			t.Errorf("%v: got code %v, want %v", test.err, got, test.code)
		}
		if got := servicetest.Info(err).GetReason(); got != test.reason {
			t.Errorf("%v: got reason %v, want %v", test.err, got, test.reason)
		}
		if again := ToStatus(err); status.Convert(again).String() != status.Convert(err).String() {
			t.Errorf("%v: a second pass changed it to %v", err, again)
		}
	}
	if got := status.Code(ToStatus(fmt.Errorf("x: %w", context.DeadlineExceeded))); got != codes.DeadlineExceeded {
		t.Errorf("got %v, want DeadlineExceeded", got)
	}
	if ToStatus(nil) != nil {
		t.Error("no error became one")
	}
}

func TestUnknownErrorIsLoggedOnceAndHidden(t *testing.T) {
	var log strings.Builder
	m, err := NewMetrics(nil, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	c := Calls{Logger: slog.New(slog.NewTextHandler(&log, nil)), Metrics: m}
	err = c.finish("/badgerelay.v1.RelayService/Publish", errors.New("secret of the inside"))
	if text := status.Convert(err).String(); strings.Contains(text, "secret") {
		t.Errorf("the caller is told %q", text)
	}
	if n := strings.Count(log.String(), "secret of the inside"); n != 1 {
		t.Errorf("logged %d times, want once: %s", n, log.String())
	}
}

func TestReasonNamesHaveNoPrefix(t *testing.T) {
	for number, name := range pb.ErrorReason_name {
		if got := ReasonName(pb.ErrorReason(number)); "ERROR_REASON_"+got != name {
			t.Errorf("reasonName(%s) = %s", name, got)
		}
	}
}
