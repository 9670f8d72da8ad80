package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"
)

func TestClassify(t *testing.T) {
	for _, test := range []struct {
		err    error
		kind   FailureKind
		reason string
	}{
		{refusal(codes.Unauthenticated, "TOKEN_REALM"), FailureToken, "TOKEN_REALM"},
		{&tokenError{errors.New("no key")}, FailureToken, ""},
		{refusal(codes.PermissionDenied, "ORGANIZATION_DISABLED"), FailureRefused, "ORGANIZATION_DISABLED"},
		{refusal(codes.FailedPrecondition, "PRODUCT_TOO_OLD"), FailureRefused, "PRODUCT_TOO_OLD"},
		{refusal(codes.InvalidArgument, "SEQUENCE_GAP"), FailureProtocol, "SEQUENCE_GAP"},
		{refusal(codes.ResourceExhausted, "LIMIT_REACHED"), FailureBusy, "LIMIT_REACHED"},
		{refusal(codes.Unavailable, "DRAINING"), FailureDraining, "DRAINING"},
		{refusal(codes.Unavailable, "REGISTRY_UNAVAILABLE"), FailureUnavailable, "REGISTRY_UNAVAILABLE"},
		{refusal(codes.Internal, "INTERNAL"), FailureUnavailable, "INTERNAL"},
		{status.Error(codes.Unavailable, "connection refused"), FailureUnavailable, ""},
		{errEnded, FailureUnavailable, ""},
		{errDraining, FailureDraining, ""},
		{&protocolError{errEnded}, FailureProtocol, ""},
	} {
		got := classify("a", test.err)
		if got.Kind != test.kind || got.Reason != test.reason || !errors.Is(got.Err, test.err) {
			t.Errorf("classify(%v) = %v %q, want %v %q", test.err, got.Kind, got.Reason, test.kind, test.reason)
		}
	}
}

func TestEnumeratedNames(t *testing.T) {
	seen := map[string]bool{}
	for k := range failureKinds {
		if s := k.String(); s == "unknown" || seen[s] {
			t.Errorf("failure kind %d is called %q, want a name of its own", k, s)
		} else {
			seen[s] = true
		}
	}
	seen = map[string]bool{}
	for o := range outcomes {
		if s := o.String(); seen[s] || (s == "unknown") != (o == OutcomeUnknown) {
			t.Errorf("outcome %d is called %q, want a name of its own", o, s)
		} else {
			seen[s] = true
		}
	}
	for number, name := range badgerelayv1.Outcome_name { // every one that a relay may send
		want := strings.ToLower(strings.TrimPrefix(name, "OUTCOME_"))
		if number == 0 {
			want = "unknown"
		}
		if got := outcomeFrom(badgerelayv1.Outcome(number)).String(); got != want {
			t.Errorf("outcome %s of the contract is %s, want %s", name, got, want)
		}
	}
	if got := outcomeFrom(99); got != OutcomeUnknown {
		t.Errorf("outcome 99 is %v, want unknown", got)
	}
}

func TestConfigNamesEveryProblem(t *testing.T) {
	cfg := Config{
		Addresses: []string{""}, BatchEvents: MaxBatch + 1, MaxUnsettled: -1,
		BackoffMin: time.Minute, BackoffMax: time.Second, Product: string(make([]byte, 65)), Instance: "one two",
	}
	_, err := New(cfg)
	want := "agent configuration: no agent name\nno agent id\nempty relay address\nno token source\n" +
		"product of 65 bytes, at most 64 are allowed\ninstance \"one two\" has a character that is not visible ASCII\nbatch of 10001 events, want 1 to 10000\n" +
		"negative limit or delay\nbackoff of at most 1s is below its least, 1m0s"
	if err == nil || err.Error() != want {
		t.Errorf("New: %v\nwant: %s", err, want)
	}
	if _, err := NewClient(Config{}); err == nil {
		t.Error("NewClient took an empty configuration")
	}
}

func TestDeviceTokenDoesNotPrint(t *testing.T) {
	token := DeviceToken("00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0")
	if got := token.LogValue().String(); got != token.String() || len(got) != len("device:")+8 {
		t.Errorf("logs as %q, want a short hash", got)
	}
}
