package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"badgerelay/auth"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/registry"
)

// infoOf returns the ErrorInfo of an error as a client sees it, or nil.
func infoOf(err error) *errdetails.ErrorInfo {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	return nil
}

func reasonOf(err error) string { return infoOf(err).GetReason() }

func metadataOf(err error) map[string]string { return infoOf(err).GetMetadata() }

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
		err := toStatus(fmt.Errorf("open: %w", &auth.TokenError{Reason: reason}))
		info := infoOf(err)
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
		{malformed(), codes.InvalidArgument, "MESSAGE_MALFORMED"},
		{errors.New("secret of the inside"), codes.Internal, "INTERNAL"},
	} {
		err := toStatus(fmt.Errorf("wrapped: %w", test.err))
		if got := status.Code(err); got != test.code {
			t.Errorf("%v: got code %v, want %v", test.err, got, test.code)
		}
		if got := infoOf(err).GetReason(); got != test.reason {
			t.Errorf("%v: got reason %v, want %v", test.err, got, test.reason)
		}
		if again := toStatus(err); status.Convert(again).String() != status.Convert(err).String() {
			t.Errorf("%v: a second pass changed it to %v", err, again)
		}
	}
	if got := status.Code(toStatus(fmt.Errorf("x: %w", context.DeadlineExceeded))); got != codes.DeadlineExceeded {
		t.Errorf("got %v, want DeadlineExceeded", got)
	}
	if toStatus(nil) != nil {
		t.Error("no error became one")
	}
}

func TestUnknownErrorIsLoggedOnceAndHidden(t *testing.T) {
	var log strings.Builder
	m, err := newMetrics(nil, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	r := rim{logger: slog.New(slog.NewTextHandler(&log, nil)), metrics: m}
	err = r.finish("/badgerelay.v1.RelayService/Publish", errors.New("secret of the inside"))
	if text := status.Convert(err).String(); strings.Contains(text, "secret") {
		t.Errorf("the caller is told %q", text)
	}
	if n := strings.Count(log.String(), "secret of the inside"); n != 1 {
		t.Errorf("logged %d times, want once: %s", n, log.String())
	}
}

func TestReasonNamesHaveNoPrefix(t *testing.T) {
	for number, name := range pb.ErrorReason_name {
		if got := reasonName(pb.ErrorReason(number)); "ERROR_REASON_"+got != name {
			t.Errorf("reasonName(%s) = %s", name, got)
		}
	}
}

// TestAgentsFaultsNameTheOrganization is what the guide promises for
// BadgerelayAgentFaults.
func TestAgentsFaultsNameTheOrganization(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.enrol("fabrikam.com", testKey(0))
		said := func(want int, why string) {
			t.Helper()
			if got := strings.Count(w.log.String(), `msg="agent breaks the contract" organization=fabrikam.com method=/badgerelay.v1.`); got != want {
				t.Errorf("%s: the log has %d lines, want %d:\n%s", why, got, want, w.log.String())
			}
		}
		a := o.greet()
		a.batch(1, &pb.Event{Mailbox: "ann"})
		a.batch(7, &pb.Event{Mailbox: "ann"})
		a.ends(codes.InvalidArgument, "SEQUENCE_GAP")
		said(1, "a stream that broke off")
		_, err := pb.NewSubscriptionServiceClient(w.conn).Subscribe(o.ctx(), &pb.SubscribeRequest{})
		wantRefusal(t, err, codes.InvalidArgument, "FIELD_INVALID")
		said(2, "a call without its fields")
		_, err = pb.NewSubscriptionServiceClient(w.conn).Unsubscribe(o.ctx(), &pb.UnsubscribeRequest{Mailbox: "ann", App: testApp, DeviceToken: strings.Repeat("ab", 32)})
		wantRefusal(t, err, codes.NotFound, "SUBSCRIPTION_NOT_FOUND")
		if _, err := w.publish(t.Context(), &pb.Event{Mailbox: "ann"}); err == nil {
			t.Error("a publish without a token succeeded")
		}
		said(2, "what is nobody's fault, and a stranger")
		wantRefusal(t, w.callRaw(o.ctx(), pb.RelayService_Publish_FullMethodName, []byte{0xff}), codes.InvalidArgument, "MESSAGE_MALFORMED")
		said(3, "a message that can't be decoded")

		mistyped := &pb.SubscribeRequest{Mailbox: "ann", App: testApp, DeviceToken: strings.Repeat("ab", 31) + "xy"}
		_, err = pb.NewSubscriptionServiceClient(w.conn).Subscribe(o.ctx(), mistyped)
		wantRefusal(t, err, codes.InvalidArgument, "FIELD_INVALID")
		said(3, "a device token that somebody mistyped")
		if got, want := w.log.String(), `msg="request with an invalid field" organization=fabrikam.com method=/badgerelay.v1.SubscriptionService/Subscribe `+
			`field=device_token rule="is not 32 to 100 bytes in hexadecimal: byte 63 of 64 is no hexadecimal digit"`; !strings.Contains(got, want) {
			t.Errorf("the log lacks %s:\n%s", want, got)
		}
		if strings.Contains(w.log.String(), strings.Repeat("ab", 31)) {
			t.Error("the log tells the token")
		}
	})
}

// TestAlertOnAgentsFaultsHasTheSameList compares the log's with Prometheus'.
func TestAlertOnAgentsFaultsHasTheSameList(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/prometheus/badgerelay.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for number := range pb.ErrorReason_name {
		if r := pb.ErrorReason(number); agentsFault(r) {
			want = append(want, label(r))
		}
	}
	found := regexp.MustCompile(`BadgerelayAgentFaults\n.*\n.*reason=~"([a-z_|]+)"`).FindSubmatch(rules)
	if found == nil {
		t.Fatal("no list of reasons in the alert")
	}
	got := strings.Split(string(found[1]), "|")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the alert counts %v, the log tells of %v", got, want)
	}
}
