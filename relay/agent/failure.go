package agent

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// FailureKind says what a failure asks for. Its String is the metric label.
type FailureKind uint8

// The kinds of failures.
const (
	// FailureUnavailable: the relay was not reached, went away, or is not
	// well. Another address or a little time mends it.
	FailureUnavailable FailureKind = iota
	// FailureToken: the relay refused the token, or none could be made.
	FailureToken
	// FailureRefused: the relay refuses this agent whatever its token: the
	// organization is disabled, the product too old. A person must act.
	FailureRefused
	// FailureBusy: the relay asks to come back later.
	FailureBusy
	// FailureDraining: the relay leaves; another one should take over.
	FailureDraining
	// FailureProtocol: one side broke the contract.
	FailureProtocol

	failureKinds // how many there are
)

// String returns the kind's name, one of a fixed set.
func (k FailureKind) String() string {
	switch k {
	case FailureUnavailable:
		return "unavailable"
	case FailureToken:
		return "token"
	case FailureRefused:
		return "refused"
	case FailureBusy:
		return "busy"
	case FailureDraining:
		return "draining"
	case FailureProtocol:
		return "protocol"
	}
	return "unknown"
}

// Failure is why a stream could not be opened or ended.
type Failure struct {
	Address string
	Kind    FailureKind
	Code    codes.Code    // gRPC's code; OK where the failure is our own
	Reason  string        // of google.rpc.ErrorInfo, such as "ORGANIZATION_DISABLED"; empty: none given
	Err     error         // the whole of it
	Again   time.Duration // how long the agent waits before it tries the next address
	After   time.Duration // what the relay asks to wait; 0: it did not say
	Repeats int           // how many failures of this kind came in a row before this one
}

// Text is what Err says, without what gRPC puts around it.
func (f *Failure) Text() string {
	if s, ok := status.FromError(f.Err); ok {
		return s.Message()
	}
	return f.Err.Error()
}

// errorDomain is the domain of our google.rpc.ErrorInfo (error.proto).
const errorDomain = "badgerelay"

// classify reads what an error says about the way ahead.
func classify(address string, err error) Failure {
	f := Failure{Address: address, Err: err, Code: status.Code(err)}
	if _, ours := errors.AsType[*tokenError](err); ours {
		f.Kind, f.Code = FailureToken, codes.OK
		return f
	}
	if _, ours := errors.AsType[*protocolError](err); ours {
		f.Kind, f.Code = FailureProtocol, codes.OK
		return f
	}
	if errors.Is(err, errDraining) {
		f.Kind, f.Code = FailureDraining, codes.OK
		return f
	}
	f.readDetails(err)
	f.Kind = kindOf(f.Code, f.Reason)
	return f
}

func (f *Failure) readDetails(err error) {
	for _, detail := range status.Convert(err).Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == errorDomain {
				f.Reason = d.GetReason()
			}
		case *errdetails.RetryInfo:
			f.After = max(0, d.GetRetryDelay().AsDuration())
		}
	}
}

// kindOf decides by the status code; the contract's reasons never contradict
// it (error.proto names the code of each).
func kindOf(code codes.Code, reason string) FailureKind {
	switch code {
	case codes.Unauthenticated:
		return FailureToken
	case codes.PermissionDenied, codes.FailedPrecondition, codes.Unimplemented:
		return FailureRefused
	case codes.InvalidArgument, codes.OutOfRange:
		return FailureProtocol
	case codes.ResourceExhausted:
		return FailureBusy
	}
	if reason == "DRAINING" {
		return FailureDraining
	}
	return FailureUnavailable
}

// protocolError is a relay that breaks the contract.
type protocolError struct{ err error }

func (e *protocolError) Error() string { return "relay breaks the contract: " + e.err.Error() }
func (e *protocolError) Unwrap() error { return e.err }

// sleep waits for d or ctx.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
