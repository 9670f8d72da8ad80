package ingest

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "badgerelay/proto/badgerelay/v1"
)

// errorDomain is the ErrorInfo domain of every refusal.
const errorDomain = "badgerelay"

// refusal is an error that the caller is told in full.
type refusal struct {
	code    codes.Code
	reason  pb.ErrorReason
	message string // for people: what is wrong, and nothing about other organizations

	field, rule string            // set where a field of the request is at fault
	passedOn    bool              // the field's value came from somebody behind the agent
	metadata    map[string]string // more for ErrorInfo
	retryAfter  time.Duration     // positive: RetryInfo is sent
}

// Error implements error.
func (r *refusal) Error() string { return r.message }

// GRPCStatus returns the refusal with its details.
func (r *refusal) GRPCStatus() *status.Status {
	info := &errdetails.ErrorInfo{
		Reason:   reasonName(r.reason),
		Domain:   errorDomain,
		Metadata: map[string]string{},
	}
	for k, v := range r.metadata {
		info.Metadata[k] = v
	}
	details := []protoadapt.MessageV1{info}
	if r.field != "" {
		info.Metadata["field"], info.Metadata["rule"] = r.field, r.rule
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: r.field, Description: r.rule},
		}})
	}
	if r.retryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.retryAfter)})
	}
	st := status.New(r.code, r.message)
	with, err := st.WithDetails(details...)
	if err != nil { // only messages that can't be marshalled; ours can
		return st
	}
	return with
}

// reasonName is the reason as ErrorInfo carries it: without the prefix.
func reasonName(r pb.ErrorReason) string {
	return strings.TrimPrefix(r.String(), "ERROR_REASON_")
}

func refuse(code codes.Code, reason pb.ErrorReason, format string, args ...any) *refusal {
	return &refusal{code: code, reason: reason, message: fmt.Sprintf(format, args...)}
}

// invalid refuses a request because a field of it breaks a rule. The rule is a
// sentence without the field's value.
func invalid(field, rule string) *refusal {
	return &refusal{
		code: codes.InvalidArgument, reason: pb.ErrorReason_ERROR_REASON_FIELD_INVALID,
		message: field + ": " + rule, field: field, rule: rule,
	}
}

// mistyped is invalid for a value that an agent passes on as people and back ends
// gave it: not the agent's doing.
func mistyped(field, rule string) *refusal {
	r := invalid(field, rule)
	r.passedOn = true
	return r
}

func limitReached(limit string, limitMax uint64) *refusal {
	return &refusal{
		code: codes.ResourceExhausted, reason: pb.ErrorReason_ERROR_REASON_LIMIT_REACHED,
		message:  fmt.Sprintf("the limit of %d %s is reached", limitMax, limit),
		metadata: map[string]string{"limit": limit, "max": fmt.Sprint(limitMax)},
	}
}

func draining() *refusal {
	return refuse(codes.Unavailable, pb.ErrorReason_ERROR_REASON_DRAINING, "the relay is leaving; go to another one")
}

func malformed() *refusal {
	return refuse(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_MESSAGE_MALFORMED, "the message can't be decoded")
}
