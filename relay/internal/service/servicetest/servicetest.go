// Package servicetest checks refusals as callers see them.
package servicetest

import (
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Info returns the ErrorInfo of an error as a client sees it, or nil.
func Info(err error) *errdetails.ErrorInfo {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	return nil
}

// Reason returns an error's reason.
func Reason(err error) string { return Info(err).GetReason() }

// WantRefusal checks the code and the reason of a refusal.
func WantRefusal(t testing.TB, err error, code codes.Code, reason string) {
	t.Helper()
	if got := status.Code(err); got != code {
		t.Errorf("got %v, want code %v", err, code)
	}
	if got := Reason(err); got != reason {
		t.Errorf("got reason %q of %v, want %q", got, err, reason)
	}
}

// WantField checks that a refusal is about a field.
func WantField(t testing.TB, err error, field string) {
	t.Helper()
	WantRefusal(t, err, codes.InvalidArgument, "FIELD_INVALID")
	if got := Info(err).GetMetadata()["field"]; got != field {
		t.Errorf("got field %q of %v, want %q", got, err, field)
	}
	if Info(err).GetMetadata()["rule"] == "" {
		t.Errorf("%v names no rule", err)
	}
}
