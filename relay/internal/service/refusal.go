package service

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

// Refusal is an error that the caller is told in full.
type Refusal struct {
	Code    codes.Code
	Reason  pb.ErrorReason
	Message string // for people: what is wrong, and nothing about other organizations

	Field, Rule string            // set where a field of the request is at fault
	PassedOn    bool              // the field's value came from somebody behind the agent
	Metadata    map[string]string // more for ErrorInfo
	RetryAfter  time.Duration     // positive: RetryInfo is sent
}

// Error implements error.
func (r *Refusal) Error() string { return r.Message }

// GRPCStatus returns the refusal with its details.
func (r *Refusal) GRPCStatus() *status.Status {
	info := &errdetails.ErrorInfo{
		Reason:   ReasonName(r.Reason),
		Domain:   errorDomain,
		Metadata: map[string]string{},
	}
	for k, v := range r.Metadata {
		info.Metadata[k] = v
	}
	details := []protoadapt.MessageV1{info}
	if r.Field != "" {
		info.Metadata["field"], info.Metadata["rule"] = r.Field, r.Rule
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: r.Field, Description: r.Rule},
		}})
	}
	if r.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.RetryAfter)})
	}
	st := status.New(r.Code, r.Message)
	with, err := st.WithDetails(details...)
	if err != nil { // only messages that can't be marshalled; ours can
		return st
	}
	return with
}

// ReasonName is the reason as ErrorInfo carries it: without the prefix.
func ReasonName(r pb.ErrorReason) string {
	return strings.TrimPrefix(r.String(), "ERROR_REASON_")
}

// Refuse makes a refusal.
func Refuse(code codes.Code, reason pb.ErrorReason, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Invalid refuses a request because a field of it breaks a rule. The rule is a
// sentence without the field's value.
func Invalid(field, rule string) *Refusal {
	return &Refusal{
		Code: codes.InvalidArgument, Reason: pb.ErrorReason_ERROR_REASON_FIELD_INVALID,
		Message: field + ": " + rule, Field: field, Rule: rule,
	}
}

// Mistyped is Invalid for a value that an agent passes on as people and back ends
// gave it: not the agent's doing.
func Mistyped(field, rule string) *Refusal {
	r := Invalid(field, rule)
	r.PassedOn = true
	return r
}

// LimitReached refuses what goes beyond a limit.
func LimitReached(limit string, limitMax uint64) *Refusal {
	return &Refusal{
		Code: codes.ResourceExhausted, Reason: pb.ErrorReason_ERROR_REASON_LIMIT_REACHED,
		Message:  fmt.Sprintf("the limit of %d %s is reached", limitMax, limit),
		Metadata: map[string]string{"limit": limit, "max": fmt.Sprint(limitMax)},
	}
}

// Draining refuses what the relay, which leaves, takes no more.
func Draining() *Refusal {
	return Refuse(codes.Unavailable, pb.ErrorReason_ERROR_REASON_DRAINING, "the relay is leaving; go to another one")
}

// Malformed refuses a message that is not what it has to be.
func Malformed() *Refusal {
	return Refuse(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_MESSAGE_MALFORMED, "the message can't be decoded")
}
