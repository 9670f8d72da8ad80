package backend

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"badgerelay/relay/agent"
)

// Codes of problems that the API itself finds; all others are the relay's
// reasons (error.proto).
const (
	CodeMalformed   = "MALFORMED"
	CodeField       = "FIELD_INVALID" // as the relay calls it
	CodeTooLarge    = "TOO_LARGE"
	CodeMediaType   = "MEDIA_TYPE"
	CodeSlow        = "REQUEST_TIMEOUT"
	CodeMethod      = "METHOD"
	CodeNotFound    = "NOT_FOUND"
	CodeBusy        = "BUSY"
	CodeTooMany     = "TOO_MANY_REMOVED"
	CodeUnreachable = "RELAY_UNREACHABLE"
	CodeTimeout     = "RELAY_TIMEOUT"
	CodeRefused     = "RELAY_REFUSED"
	CodeToken       = "TOKEN_REQUIRED"  // the caller has not shown the token of the listener
	CodeNetwork     = "NETWORK_REFUSED" // nor is it of a network that the listener serves
)

// problem is an error of a request, in the form of RFC 9457 (read 2026-11).
type problem struct {
	status int
	code   string
	detail string        // for people
	field  string        // that is at fault; empty: none
	after  time.Duration // when to come back; 0: not said
}

// Error implements error.
func (p *problem) Error() string { return p.code + ": " + p.detail }

func malformed(detail string) *problem {
	return &problem{status: http.StatusBadRequest, code: CodeMalformed, detail: detail}
}

func invalid(field, rule string) *problem {
	return &problem{status: http.StatusBadRequest, code: CodeField, field: field, detail: field + " " + rule}
}

// gone is what nobody hears: the caller has hung up. Servers commonly call
// that 499; HTTP has no name for it.
var gone = &problem{status: 499, code: "GONE", detail: "the caller has gone"}

// errSlow is told to a caller whose body takes longer than the listener waits. To
// the server he looks as if he had gone.
var errSlow = &problem{status: http.StatusRequestTimeout, code: CodeSlow, detail: "the body took too long to arrive"}

// Problem is the body of an answer that is not a success.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Field  string `json:"field,omitempty"`
}

// Refuse answers a request that does not reach the API, in the form of its own
// answers.
func Refuse(w http.ResponseWriter, status int, code, detail string) {
	write(w, &problem{status: status, code: code, detail: detail})
}

func write(w http.ResponseWriter, p *problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	if p.after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(p.after.Seconds()))))
	}
	w.WriteHeader(p.status)
	// The caller has gone; there is nobody to tell.
	_ = json.NewEncoder(w).Encode(Problem{"about:blank", http.StatusText(p.status), p.status, p.detail, p.code, p.field})
}

// explain turns an error into what the back end is told. What the relay has
// against the agent is nothing the back end could mend: 502.
func explain(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	st, _ := status.FromError(err)
	if errors.Is(err, context.DeadlineExceeded) || st.Code() == codes.DeadlineExceeded {
		return &problem{status: http.StatusGatewayTimeout, code: CodeTimeout, detail: "the relay did not answer in time", after: time.Second}
	}
	f := agent.Explain(err)
	p := &problem{code: f.Reason, detail: st.Message(), after: f.After}
	switch {
	case f.Kind == agent.FailureUnavailable || f.Kind == agent.FailureDraining:
		p.status, p.after = http.StatusServiceUnavailable, max(p.after, time.Second)
		return fallBack(p, CodeUnreachable, "the relay can't be reached")
	case f.Reason == "APP_NOT_ALLOWED":
		p.status = http.StatusForbidden
	case f.Code == codes.ResourceExhausted:
		p.status = http.StatusTooManyRequests
	case f.Code == codes.InvalidArgument && f.Reason != "":
		p.status, p.field = http.StatusBadRequest, fieldOf(st)
	default:
		p.status = http.StatusBadGateway
	}
	return fallBack(p, CodeRefused, "the relay refuses the agent; its log and 'badgeagent probe' say more")
}

// fallBack names a problem that the relay has not named. Texts that are not the
// relay's stay in the log: they are about the way to it.
func fallBack(p *problem, code, detail string) *problem {
	if p.code == "" {
		p.code, p.detail = code, detail
	}
	return p
}

// fields are the API's names of the contract's fields.
var fields = map[string]string{"device_token": "deviceToken", "page_token": "page", "page_size": "limit"}

// fieldOf returns which field the relay objects to, by the API's name.
func fieldOf(st *status.Status) string {
	for _, d := range st.Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		if !ok {
			continue
		}
		field := info.GetMetadata()["field"]
		if ours, ok := fields[field]; ok {
			return ours
		}
		return field
	}
	return ""
}
