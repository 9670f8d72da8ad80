package ingest

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/internal/service"
)

func TestCompareVersions(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"15.0.775.38", "15.0.775.38", 0},
		{"15.0.775.37", "15.0.775.38", -1},
		{"15.0.1130.7", "15.0.775.38", 1}, // as text it would be older
		{"15.1", "15.0.775.38", 1},
		{"15.0", "15.0.775.38", -1},
		{"15", "15.0.0", 0},
		{"8.3.6", "15.0.775.38", -1},
		{"015.00.0775.038", "15.0.775.38", 0},
		{"15.0.775.99999999999999999999999", "15.0.775.38", 1},
		{"0", "0.0.0.1", -1},
	} {
		if got := sign(compareVersions(test.a, test.b)); got != test.want {
			t.Errorf("compareVersions(%q, %q) = %d, want %d", test.a, test.b, got, test.want)
		}
		if got := sign(compareVersions(test.b, test.a)); got != -test.want {
			t.Errorf("compareVersions(%q, %q) = %d, want %d", test.b, test.a, got, -test.want)
		}
	}
}

func sign(n int) int { return min(1, max(-1, n)) }

func TestDottedNumeric(t *testing.T) {
	for v, want := range map[string]bool{
		"15.0.775.38": true, "1": true, "": false, ".": false, "1.": false, ".1": false, "1..2": false,
		"1.2-rc1": false, "v1": false, "1 .2": false, "+1": false, "-1": false, "1.٣": false,
	} {
		if got := dottedNumeric(v); got != want {
			t.Errorf("dottedNumeric(%q) = %v, want %v", v, got, want)
		}
	}
}

func TestAgentRules(t *testing.T) {
	p, err := newProducts(map[string]string{"Dovecot": "2.3.19"})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 129)
	for _, test := range []struct {
		agent  *pb.Agent
		field  string
		reason pb.ErrorReason
	}{
		{&pb.Agent{Name: "mx1"}, "", 0},
		{&pb.Agent{Name: "mx1", Product: "exchange", ProductVersion: "15.0.775.38"}, "", 0},
		{&pb.Agent{Name: "mx1", Product: "Other"}, "", 0},
		{&pb.Agent{Name: "mx1", Product: "Other", ProductVersion: "any thing"}, "", 0},
		{&pb.Agent{Name: "mx1", Product: "Exchange", ProductVersion: "15.0.712.24"}, "", pb.ErrorReason_ERROR_REASON_PRODUCT_TOO_OLD},
		{&pb.Agent{Name: "mx1", Product: "DOVECOT", ProductVersion: "2.3.4.1"}, "", pb.ErrorReason_ERROR_REASON_PRODUCT_TOO_OLD},
		{&pb.Agent{Name: "mx1", Product: "Exchange"}, "agent.product_version", pb.ErrorReason_ERROR_REASON_FIELD_INVALID},
		{&pb.Agent{Name: "mx1", Product: "Exchange", ProductVersion: "15.0 (Build 775.38)"}, "agent.product_version", pb.ErrorReason_ERROR_REASON_FIELD_INVALID},
		{&pb.Agent{}, "agent.name", pb.ErrorReason_ERROR_REASON_FIELD_INVALID},
		{&pb.Agent{Name: long}, "agent.name", pb.ErrorReason_ERROR_REASON_FIELD_INVALID},
		{&pb.Agent{Name: "\xff"}, "agent.name", pb.ErrorReason_ERROR_REASON_FIELD_INVALID},
		{&pb.Agent{Name: "mx1\n"}, "agent.name", pb.ErrorReason_ERROR_REASON_FIELD_INVALID},
		{&pb.Agent{Name: "mx1", Product: "a\x1b"}, "agent.product", pb.ErrorReason_ERROR_REASON_FIELD_INVALID},
		{&pb.Agent{Name: "mx1", Product: long}, "agent.product", pb.ErrorReason_ERROR_REASON_FIELD_INVALID},
		{&pb.Agent{Name: "mx1", Product: "\xff"}, "agent.product", pb.ErrorReason_ERROR_REASON_FIELD_INVALID},
		{&pb.Agent{Name: "mx1", ProductVersion: long}, "agent.product_version", pb.ErrorReason_ERROR_REASON_FIELD_INVALID},
		{&pb.Agent{Name: "mx1", ProductVersion: "\xff"}, "agent.product_version", pb.ErrorReason_ERROR_REASON_FIELD_INVALID},
	} {
		err := p.check(test.agent)
		if test.reason == 0 {
			if err != nil {
				t.Errorf("%v: got %v, want it taken", test.agent, err)
			}
			continue
		}
		r, ok := errors.AsType[*service.Refusal](err)
		if !ok || r.Reason != test.reason || r.Field != test.field {
			t.Errorf("%v: got %v, want %v of field %q", test.agent, err, test.reason, test.field)
		}
	}
}

func TestTooOldNamesBothVersions(t *testing.T) {
	p, err := newProducts(nil)
	if err != nil {
		t.Fatal(err)
	}
	r, ok := errors.AsType[*service.Refusal](p.checkVersion("Exchange", "15.0.516.32"))
	if !ok {
		t.Fatal("an old version was taken")
	}
	if r.Code != codes.FailedPrecondition {
		t.Errorf("got code %v, want FailedPrecondition", r.Code)
	}
	for _, version := range []string{"15.0.516.32", "15.0.775.38"} {
		if !strings.Contains(r.Message, version) {
			t.Errorf("%q does not name %s", r.Message, version)
		}
	}
}

func TestMinimumVersionsConfigured(t *testing.T) {
	if _, err := newProducts(map[string]string{"X": "1.2b"}); err == nil {
		t.Error("a minimum that can't be compared was taken")
	}
	p, err := newProducts(map[string]string{"EXCHANGE": ""})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.checkVersion("Exchange", "1.0"); err != nil {
		t.Errorf("got %v, want no minimum", err)
	}
}
